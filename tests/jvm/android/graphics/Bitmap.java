package android.graphics;

/** A stand-in with the signatures of Android's class: pixels as non-premultiplied ARGB. */
public final class Bitmap {
    private final int[] argb;
    private final int width;

    public Bitmap(int[] argb, int width) {
        this.argb = argb;
        this.width = width;
    }

    public int getWidth() {
        return width;
    }

    public int getHeight() {
        return argb.length / width;
    }

    public void getPixels(int[] pixels, int offset, int stride, int x, int y, int width, int height) {
        if (x != 0 || y != 0 || width != getWidth() || height != getHeight() || stride != width) throw new IllegalArgumentException();
        System.arraycopy(argb, 0, pixels, offset, argb.length);
    }
}
