// Stand-ins with the signatures of onnxruntime's Swift package; they answer as those of TensorFlowLite do.
import Foundation
import TensorFlowLite

public enum ORTLoggingLevel { case verbose, info, warning, error, fatal }
public enum ORTTensorElementDataType { case undefined, float, int8, uInt8 }
public final class ORTSessionOptions {}
public final class ORTRunOptions {}

public final class ORTEnv {
    public init(loggingLevel: ORTLoggingLevel) throws {}
}

public final class ORTValue {
    let held: NSMutableData

    public init(tensorData: NSMutableData, elementType: ORTTensorElementDataType, shape: [NSNumber]) throws {
        guard elementType == .float, shape.reduce(4, { $0 * $1.intValue }) == tensorData.length else {
            throw CocoaError(.keyValueValidation)
        }
        held = tensorData
    }

    public func tensorData() throws -> NSMutableData { held }
}

public final class ORTSession {
    public init(env: ORTEnv, modelPath: String, sessionOptions: ORTSessionOptions?) throws {
        guard FileManager.default.fileExists(atPath: modelPath) else { throw CocoaError(.fileNoSuchFile) }
    }

    public func run(withInputs inputs: [String: ORTValue], outputNames: Set<String>, runOptions: ORTRunOptions?) throws -> [String: ORTValue] {
        given = inputs.mapValues { Data(referencing: $0.held) }
        var found: [String: ORTValue] = [:]
        for name in outputNames {
            let values = numbers[name]!
            let bytes = values.withUnsafeBytes { NSMutableData(bytes: $0.baseAddress!, length: $0.count) }
            found[name] = try ORTValue(tensorData: bytes, elementType: .float, shape: [NSNumber(value: values.count)])
        }
        return found
    }
}
