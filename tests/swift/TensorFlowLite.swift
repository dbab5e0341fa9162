// Stand-ins with the signatures of TensorFlowLiteSwift: they keep what they are given, and answer with what is laid down.
import Foundation

nonisolated(unsafe) public var numbers: [String: [Float]] = [:]
nonisolated(unsafe) public var integers: Set<String> = []
nonisolated(unsafe) public var given: [String: Data] = [:]

public struct QuantizationParameters {
    public let scale: Float
    public let zeroPoint: Int
}

public struct Tensor {
    public enum DataType { case bool, uInt8, int16, int32, int64, float16, float32, float64 }
    public let dataType: DataType
    public let data: Data
    public let quantizationParameters: QuantizationParameters?
}

public final class Interpreter {
    public struct Options {}
    public final class Delegate {}

    public init(modelPath: String, options: Options? = nil, delegates: [Delegate]? = nil) throws {
        guard FileManager.default.fileExists(atPath: modelPath) else { throw CocoaError(.fileNoSuchFile) }
    }

    public func signatureRunner(with key: String) throws -> SignatureRunner {
        guard key == "serving_default" else { throw CocoaError(.keyValueValidation) }
        return SignatureRunner()
    }
}

public final class SignatureRunner {
    public func invoke(with inputs: [String: Data]) throws { given = inputs }

    public func output(named name: String) throws -> Tensor {
        guard let values = numbers[name] else { throw CocoaError(.keyValueValidation) }
        if integers.contains(name) {
            let data = Data(values.map { UInt8(($0 * 256).rounded()) })
            return Tensor(dataType: .uInt8, data: data, quantizationParameters: QuantizationParameters(scale: 1.0 / 256, zeroPoint: 0))
        }
        return Tensor(dataType: .float32, data: values.withUnsafeBytes { Data($0) }, quantizationParameters: nil)
    }
}
