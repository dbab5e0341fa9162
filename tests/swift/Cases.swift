import CoreGraphics
import Foundation
import OnnxRuntimeBindings
import TensorFlowLite

/// Lets the code of one README answer one picture, and prints what came of it as a line of JSON.
func tell(_ path: String, _ use: (URL, CGImage) throws -> ([UInt8], [String: [Float]], [String: Any])) throws {
    let folder = URL(fileURLWithPath: path)
    func text(_ name: String) throws -> String { try String(contentsOf: folder.appendingPathComponent(name), encoding: .utf8) }
    (numbers, integers, given) = ([:], [], [:])
    for line in try text("numbers.txt").components(separatedBy: "\n").dropLast() {
        let parts = line.components(separatedBy: "\t")
        numbers[parts[0]] = parts[2].components(separatedBy: " ").map { Float($0)! }
        if parts[1] == "uint8" { integers.insert(parts[0]) }
    }
    let width = Int(try text("size.txt").components(separatedBy: " ")[0])!
    let argb = [UInt8](try Data(contentsOf: folder.appendingPathComponent("argb.bin")))
    var rgba = argb
    for at in stride(from: 0, to: argb.count, by: 4) { rgba.replaceSubrange(at..<(at + 4), with: argb[(at + 1)..<(at + 4)] + [argb[at]]) }
    let (pixels, found, answer) = try use(folder, CGImage(rgba: rgba, width: width))
    let told: [String: Any] = [
        "pixels": hex(Data(pixels)), "given": given.mapValues(hex), "numbers": found.mapValues(plain),
        "answer": answer.mapValues(plain),
    ]
    print(String(data: try JSONSerialization.data(withJSONObject: told), encoding: .utf8)!)
}

private func hex(_ data: Data) -> String { data.map { String(format: "%02x", $0) }.joined() }

private func plain(_ value: Any) -> Any {
    if let pairs = value as? [(String, Float)] { return pairs.map { [$0.0, Double($0.1)] as [Any] } }
    if let named = value as? [String: Float] { return named.mapValues { Double($0) } }
    if let vector = value as? [Float] { return vector.map { Double($0) } }
    return value
}
