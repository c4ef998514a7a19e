import com.google.gson.JsonElement
import com.google.gson.JsonObject
import java.awt.geom.AffineTransform
import qupath.lib.images.servers.AffineTransformImageServer
import qupath.lib.images.servers.CroppedImageServer
import qupath.lib.images.servers.RotatedImageServer
import qupath.lib.images.servers.TransformingImageServer
import qupath.lib.io.GsonTools

/**
 * How an image lies in its file: wsi-attention counts in level-0 pixels of the file, QuPath in pixels of the image that it
 * shows, which may be cropped to the scanned bounds, cropped by the user, rotated (0.4) or flipped (0.7).
 */
class WsiAttentionFrame {

    /**
     * Level-0 pixels of the file to pixels of the image.
     *
     * @param series the series of the file that is meant; 0 is what wsi-attention reads
     */
    static AffineTransform ofImage(server, int series) {
        frame(server, series) { base -> boundsOf(base) }
    }

    /** The same for a result, whose size must be that of the file or of its bounds; `source` names it in errors. */
    static AffineTransform ofResult(server, int series, JsonObject about, String source) {
        frame(server, series) { base -> checkedOffset(base, about, source) }
    }

    static List<Double> numbers(JsonObject about, String name) {
        about.getAsJsonArray(name).collect { it.asDouble }
    }

    /** The name of the slide's file; the name in the project may have been changed. */
    static String nameOf(server) {
        server.URIs ? partsOf(server.URIs[0])[-1] : server.metadata.name
    }

    static List<String> partsOf(URI uri) {
        (uri.path ?: uri.schemeSpecificPart).tokenize('/')
    }

    static File fileOf(server) {
        fileOf(server.URIs ? server.URIs[0] : null)
    }

    static File fileOf(URI uri) {
        check(uri?.scheme == 'file', "${uri}: wsi-attention needs the slide as a file; QuPath knows none")
        new File(new URI(uri.scheme, uri.authority, uri.path, null, null))
    }

    static void check(condition, String problem) {
        if (!condition)
            throw new IllegalArgumentException(problem)
    }

    private static AffineTransform frame(server, int series, Closure offsetOf) {
        AffineTransform toImage = new AffineTransform()
        def base = server
        for (def inner = wrappedBy(base); inner != null; inner = wrappedBy(base)) {
            toImage.concatenate(stepOf(base, inner))
            base = inner
        }
        int shown = seriesOf(base)
        check(shown == series, "${nameOf(base)}: this image is series ${shown} of its file, the results are for series " +
            "${series}; open that one, or set series=${shown} if they are for this one after all")
        def (x, y) = offsetOf(base)
        toImage.translate(-x, -y)
        toImage
    }

    /** From pixels of the inner server to pixels of the one around it. */
    private static AffineTransform stepOf(outer, inner) {
        double w = inner.width, h = inner.height
        if (outer instanceof RotatedImageServer)
            return rotation(outer.rotation.name(), w, h)
        if (outer instanceof CroppedImageServer)
            return AffineTransform.getTranslateInstance(-outer.cropRegion.x, -outer.cropRegion.y)
        if (outer.class.simpleName == 'FlippedImageServer')
            return flip(outer.@flip.name(), w, h)
        boolean sameFrame = outer.width == inner.width && outer.height == inner.height
        check(sameFrame && !(outer instanceof AffineTransformImageServer), "${nameOf(outer)}: the image is transformed " +
            "in a way that results cannot follow (${outer.serverType}); open the slide itself")
        new AffineTransform()
    }

    private static AffineTransform rotation(String name, double w, double h) {
        switch (name) {
            case 'ROTATE_90': return new AffineTransform(0d, 1d, -1d, 0d, h, 0d)
            case 'ROTATE_180': return new AffineTransform(-1d, 0d, 0d, -1d, w, h)
            case 'ROTATE_270': return new AffineTransform(0d, -1d, 1d, 0d, 0d, w)
        }
        new AffineTransform()
    }

    private static AffineTransform flip(String name, double w, double h) {
        boolean across = name in ['HORIZONTAL', 'BOTH'], down = name in ['VERTICAL', 'BOTH']
        new AffineTransform(across ? -1d : 1d, 0d, 0d, down ? -1d : 1d, across ? w : 0d, down ? h : 0d)
    }

    private static wrappedBy(server) {
        if (server instanceof TransformingImageServer)
            return server.wrappedServer
        server.class.simpleName == 'PyramidGeneratingImageServer' ? server.@server : null
    }

    /** Where the file server's (0, 0) lies in level-0 pixels, after its size was compared with that of the result. */
    private static List<Double> checkedOffset(base, JsonObject about, String source) {
        List whole = numbers(about, 'extent')
        List bounds = about.has('bounds') ? numbers(about, 'bounds') : null
        List shown = [base.width as double, base.height as double]
        if (shown == whole)
            return [0d, 0d]
        check(bounds != null && shown == bounds[2..3],
            "${source}: made for ${size(whole)} pixels${bounds ? ' or its bounds of ' + size(bounds[2..3]) : ''}, but " +
            "${nameOf(base)} has ${size(shown)}: another slide, or another scene of it")
        bounds[0..1]
    }

    /** The same from the file's own tags, where QuPath reads it through OpenSlide. */
    private static List<Double> boundsOf(base) {
        String tags = base.dumpMetadata() ?: ''
        JsonElement found = tags.startsWith('{') ? GsonTools.instance.fromJson(tags, JsonElement) : null
        def tag = { String name -> found?.asJsonObject?.get("openslide.bounds-$name")?.asDouble }
        boolean cropped = tag('width') == base.width as double && tag('height') == base.height as double
        cropped && tag('x') != null && tag('y') != null ? [tag('x'), tag('y')] : [0d, 0d]
    }

    /** Bio-Formats names a further scene of a file in its arguments, or as the fragment of its URI. */
    private static int seriesOf(base) {
        String fragment = base.URIs.collect { it.fragment }.find { it?.isInteger() }
        def named = base.path =~ /--series[,\s=\]\["]*(\d+)/
        fragment ? fragment as int : named.find() ? named.group(1) as int : 0
    }

    private static String size(List wh) {
        wh.collect { it as long }.join(' x ')
    }
}
