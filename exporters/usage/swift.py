"""Swift code that answers with a TFLite or an ONNX artifact on iOS and macOS."""

from __future__ import annotations

from exporters.contract import BINARY, EMBEDDING, MULTILABEL, ORDINAL, SEGMENTATION, Card
from exporters.usage.parts import NAMED, RANKED, Language, defaults, listed, names_of, quoted

_CODE = """
// «INSTALL»
import CoreGraphics
import Foundation
import ImageIO
«IMPORT»

/// `try Model(folder: Bundle.main.resourceURL!).answer(try Model.upright(file))`, where the app carries the files of this folder.
final class Model {
    let folder: URL
    «OPEN»
    «COLUMNS»

    /// A picture as the model takes it, RGB, «WIDTH» x «HEIGHT»; `image` upright, as `Model.upright` gives it.
    func pixels(_ image: CGImage) throws -> [UInt8] {
        let (width, height) = (image.width, image.height)
        guard
            let context = CGContext(
                data: nil, width: width, height: height, bitsPerComponent: 8, bytesPerRow: width * 4,
                space: image.colorSpace?.model == .rgb ? image.colorSpace! : CGColorSpaceCreateDeviceRGB(),
                bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue),
            let rgbx = context.data
        else { throw CocoaError(.fileReadCorruptFile) }
        let all = CGRect(x: 0, y: 0, width: width, height: height)
        context.setFillColor(red: 1, green: 1, blue: 1, alpha: 1)
        context.fill(all)
        context.draw(image, in: all)
        let bytes = UnsafeRawBufferPointer(start: rgbx, count: width * height * 4)
        var data = [UInt8](repeating: 0, count: width * height * 3)
        for at in 0..<(width * height) {
            for c in 0..<3 { data[at * 3 + c] = bytes[at * 4 + c] }
        }
        return fit(Picture(data: data, width: width, height: height)).data
    }

    /// Output -> its numbers.
    func numbers(_ image: CGImage«PARAMETER») throws -> [String: [Float]] {
        «RUN»
    }

    /// Output -> what its numbers say.
    func answer(_ image: CGImage«PARAMETER») throws -> [String: Any] {
        let found = try numbers(image«ARGUMENT»)
        return [
            «READ»
        ]
    }

    «LABELS»

    struct Picture {
        var data: [UInt8]
        let width: Int
        let height: Int
    }

    «FIT»

    /// As Pillow does it: the values between the two passes are rounded to 8 bits, so their order shows.
    func stretch(_ picture: Picture, _ width: Int, _ height: Int) -> Picture {
        let lost = picture.height - height
        let heightFirst = lost > 0 && lost > 2 * (picture.width - width)
        let first = heightFirst ? resample(picture, height, true) : picture
        return resample(resample(first, width, false), height, true)
    }

    /// Average one axis by a triangle that widens as the picture shrinks, its weights rounded to 22 bits.
    func resample(_ picture: Picture, _ to: Int, _ vertical: Bool) -> Picture {
        let from = vertical ? picture.height : picture.width
        if from == to { return picture }
        let lines = vertical ? picture.width : picture.height
        let (width, height) = vertical ? (picture.width, to) : (to, picture.height)
        var data = [UInt8](repeating: 0, count: width * height * 3)
        let (step, lineStep) = vertical ? (picture.width * 3, 3) : (3, picture.width * 3)
        let (madeStep, madeLineStep) = vertical ? (width * 3, 3) : (3, width * 3)
        let scale: Double = Double(from) / Double(to)
        let reach: Double = max(scale, 1)
        for i in 0..<to {
            let center = (Double(i) + 0.5) * scale
            let first = max(0, Int(center - reach + 0.5))
            let last = min(from, Int(center + reach + 0.5))
            var shares: [Double] = []
            for k in first..<last {
                let apart: Double = (Double(k) - center + 0.5) * (1 / reach)
                shares.append(max(0, 1 - abs(apart)))
            }
            let sum = shares.reduce(0, +)
            let weights = shares.map { (share: Double) -> Int in Int(0.5 + share / sum * 4_194_304) }
            for line in 0..<lines {
                for c in 0..<3 {
                    var value = 2_097_152
                    for k in first..<last {
                        let at = line * lineStep + k * step + c
                        value += Int(picture.data[at]) * weights[k - first]
                    }
                    data[line * madeLineStep + i * madeStep + c] = UInt8(min(255, value >> 22))
                }
            }
        }
        return Picture(data: data, width: width, height: height)
    }
}

extension Model {
    /// A picture of a file, turned by its EXIF orientation.
    static func upright(_ url: URL) throws -> CGImage {
        let options: [CFString: Any] = [
            kCGImageSourceCreateThumbnailFromImageAlways: true,
            kCGImageSourceCreateThumbnailWithTransform: true,
            kCGImageSourceThumbnailMaxPixelSize: 65_536,
        ]
        guard let source = CGImageSourceCreateWithURL(url as CFURL, nil),
            let image = CGImageSourceCreateThumbnailAtIndex(source, 0, options as CFDictionary)
        else { throw CocoaError(.fileReadCorruptFile) }
        return image
    }
}
"""

_FIT = {
    "stretch": "func fit(_ picture: Picture) -> Picture { stretch(picture, «WIDTH», «HEIGHT») }",
    "center": """/// The largest box of the model's aspect in the middle.
func fit(_ picture: Picture) -> Picture {
    let wide = picture.width * «HEIGHT» > picture.height * «WIDTH»
    let width = wide ? max(1, picture.height * «WIDTH» / «HEIGHT») : picture.width
    let height = wide ? picture.height : max(1, picture.width * «HEIGHT» / «WIDTH»)
    let (left, top) = ((picture.width - width) / 2, (picture.height - height) / 2)
    var data: [UInt8] = []
    for row in 0..<height {
        let start = ((top + row) * picture.width + left) * 3
        data += picture.data[start..<(start + width * 3)]
    }
    return stretch(Picture(data: data, width: width, height: height), «WIDTH», «HEIGHT»)
}""",
    "pad": """/// The whole picture in the middle of a black one.
func fit(_ picture: Picture) -> Picture {
    let wide = picture.width * «HEIGHT» > picture.height * «WIDTH»
    let width = wide ? «WIDTH» : max(1, picture.width * «HEIGHT» / picture.height)
    let height = wide ? max(1, picture.height * «WIDTH» / picture.width) : «HEIGHT»
    let (left, top) = ((«WIDTH» - width) / 2, («HEIGHT» - height) / 2)
    let inner = stretch(picture, width, height).data
    var data = [UInt8](repeating: 0, count: «WIDTH» * «HEIGHT» * 3)
    for row in 0..<height {
        let start = ((top + row) * «WIDTH» + left) * 3
        data.replaceSubrange(start..<(start + width * 3), with: inner[(row * width * 3)..<((row + 1) * width * 3)])
    }
    return Picture(data: data, width: «WIDTH», height: «HEIGHT»)
}""",
}

_LABELS = """func labels(_ name: String) throws -> [String] {
    let text = try String(contentsOf: folder.appendingPathComponent(name), encoding: .utf8)
    return text.components(separatedBy: "\\n").dropLast()
}

func ranked(_ names: [String], _ probabilities: [Float]) -> [(String, Float)] {
    Array(zip(names, probabilities)).sorted { $0.1 > $1.1 }
}"""

_CLASSES = """/// The likeliest class of each place, row by row.
func classes(_ probabilities: [Float], _ count: Int) -> [Int] {
    (0..<(probabilities.count / count)).map { place in
        (0..<count).reduce(0) { probabilities[place * count + $1] > probabilities[place * count + $0] ? $1 : $0 }
    }
}"""

_READ = {
    RANKED: "ranked(try labels(«FILE»), found[«NAME»]!)",
    BINARY: "ranked(try labels(«FILE»), [1 - found[«NAME»]![0], found[«NAME»]![0]])",
    MULTILABEL: "ranked(try labels(«FILE»), found[«NAME»]!).filter { $0.1 > 0.5 }",
    ORDINAL: "try labels(«FILE»)[found[«NAME»]!.filter { $0 > 0.5 }.count]",
    NAMED: "Dictionary(uniqueKeysWithValues: zip([«NAMES»], found[«NAME»]!))",
    EMBEDDING: "found[«NAME»]!",
    SEGMENTATION: "classes(found[«NAME»]!, «COUNT»)",
}

_TFLITE = {
    "INSTALL": 'Podfile: pod "TensorFlowLiteSwift"',
    "IMPORT": "import TensorFlowLite",
    "OPEN": """private let runner: SignatureRunner

init(folder: URL) throws {
    self.folder = folder
    let interpreter = try Interpreter(modelPath: folder.appendingPathComponent("model.tflite").path)
    runner = try interpreter.signatureRunner(with: "serving_default")
}""",
}
_ONNX = {
    "INSTALL": "Swift package: https://github.com/microsoft/onnxruntime-swift-package-manager",
    "IMPORT": "import OnnxRuntimeBindings",
    "OPEN": """private let session: ORTSession

init(folder: URL) throws {
    self.folder = folder
    let environment = try ORTEnv(loggingLevel: .warning)
    let path = folder.appendingPathComponent("model.onnx").path
    session = try ORTSession(env: environment, modelPath: path, sessionOptions: nil)
}

private func tensor(_ values: [Float], _ shape: [NSNumber]) throws -> ORTValue {
    let bytes = values.withUnsafeBytes { NSMutableData(bytes: $0.baseAddress!, length: $0.count) }
    return try ORTValue(tensorData: bytes, elementType: .float, shape: shape)
}""",
}


def _columns(card: Card) -> str:
    lines = "".join(f"    {number},  // {name}\n" for number, name in defaults(card))
    return f"\n/// What stands for an unknown value, column by column.\nstatic let unknown: [Float] = [\n{lines}]"


def _run_tflite(card: Card) -> str:
    names = listed(names_of(card))
    image = "Data(data)" if card.input_dtype == "uint8" else "bytes(data.map(Float.init))"
    beside = ', "columns": bytes(columns)' if card.columns else ""
    lines = ["let data = try pixels(image)"]
    if card.input_dtype != "uint8" or card.columns:
        lines += ["func bytes(_ values: [Float]) -> Data { values.withUnsafeBytes { Data($0) } }"]
    lines += [
        f'try runner.invoke(with: ["image": {image}{beside}])',
        "var found: [String: [Float]] = [:]",
        f"for name in [{names}] {{",
        "    let tensor = try runner.output(named: name)",
        "    if let steps = tensor.quantizationParameters, tensor.dataType == .uInt8 {",
        "        found[name] = tensor.data.map { Float(Int($0) - steps.zeroPoint) * steps.scale }",
        "    } else {",
        "        found[name] = tensor.data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }",
        "    }",
        "}",
        "return found",
    ]
    return "\n".join(lines)


def _run_onnx(card: Card) -> str:
    names = listed(names_of(card))
    shape = f"1, {card.resize.height}, {card.resize.width}, 3"
    beside = [f'inputs["columns"] = try tensor(columns, [1, {len(card.columns)}])'] if card.columns else []
    keyword = "var" if beside else "let"
    return "\n".join(
        [
            f'{keyword} inputs = ["image": try tensor(try pixels(image).map(Float.init), [{shape}])]',
            *beside,
            f"let answers = try session.run(withInputs: inputs, outputNames: [{names}], runOptions: nil)",
            "return try answers.mapValues { value in",
            "    Data(referencing: try value.tensorData()).withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }",
            "}",
        ]
    )


SWIFT = Language(
    template=_CODE,
    fits=_FIT,
    labels=_LABELS,
    classes=_CLASSES,
    reads=_READ,
    entry="«NAME»: «READ»",
    runtimes={"tflite": _TFLITE, "onnx": _ONNX},
    runs={"tflite": _run_tflite, "onnx": _run_onnx},
    columns=_columns,
    beside=(", columns: [Float] = Model.unknown", ", columns: columns"),
    literal=quoted,
)
