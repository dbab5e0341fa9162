// Stand-ins with the signatures of Apple's classes, for machines that lack them.
import Foundation

public final class CGColorSpace {
    public enum Model { case rgb, monochrome }
    public let model: Model
    init(_ model: Model) { self.model = model }
}

public func CGColorSpaceCreateDeviceRGB() -> CGColorSpace { CGColorSpace(.rgb) }

public enum CGImageAlphaInfo: UInt32 {
    case none, premultipliedLast, premultipliedFirst, last, first, noneSkipLast, noneSkipFirst
}

public final class CGImage {
    public let width: Int
    public let height: Int
    public var colorSpace: CGColorSpace? { CGColorSpace(.rgb) }
    let rgba: [UInt8]

    public init(rgba: [UInt8], width: Int) {
        self.rgba = rgba
        self.width = width
        height = rgba.count / 4 / width
    }
}

public final class CGContext {
    public let data: UnsafeMutableRawPointer?
    let width: Int
    let height: Int
    var fill: [UInt8] = [0, 0, 0]

    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int, space: CGColorSpace,
        bitmapInfo: UInt32
    ) {
        guard bitsPerComponent == 8, bytesPerRow == width * 4, bitmapInfo == CGImageAlphaInfo.noneSkipLast.rawValue else { return nil }
        self.width = width
        self.height = height
        self.data = UnsafeMutableRawPointer.allocate(byteCount: width * height * 4, alignment: 16)
    }

    deinit { data?.deallocate() }

    public func setFillColor(red: CGFloat, green: CGFloat, blue: CGFloat, alpha: CGFloat) {
        fill = [red, green, blue].map { UInt8($0 * 255) }
    }

    public func fill(_ rect: CGRect) {
        for at in 0..<(width * height) {
            for c in 0..<3 { data!.storeBytes(of: fill[c], toByteOffset: at * 4 + c, as: UInt8.self) }
        }
    }

    public func draw(_ image: CGImage, in rect: CGRect) {
        precondition(rect == CGRect(x: 0, y: 0, width: width, height: height) && image.width == width)
        for at in 0..<(width * height) {
            let alpha = Int(image.rgba[at * 4 + 3])
            for c in 0..<3 {
                let under = Int(data!.load(fromByteOffset: at * 4 + c, as: UInt8.self))
                let value = (Int(image.rgba[at * 4 + c]) * alpha + under * (255 - alpha) + 127) / 255
                data!.storeBytes(of: UInt8(value), toByteOffset: at * 4 + c, as: UInt8.self)
            }
        }
    }
}
