// Runs the scripts of plugins/qupath inside QuPath's own classes: a job a line comes in as JSON, its outcome goes out.
import com.google.gson.JsonObject
import java.awt.image.BufferedImage
import javax.imageio.ImageIO
import qupath.lib.common.GeneralTools
import qupath.lib.images.ImageData
import qupath.lib.images.servers.*
import qupath.lib.io.GsonTools
import qupath.lib.io.PathIO
import qupath.lib.objects.PathObject
import qupath.lib.projects.Projects
import qupath.lib.regions.ImageRegion
import qupath.lib.regions.RegionRequest

/** A picture as the file of a slide: a URI, tags and a path as OpenSlide's and Bio-Formats' servers have them. */
class FileServer extends WrappedBufferedImageServer {
    URI uri
    String tags, arguments

    FileServer(BufferedImage image, String name) { super(name, image) }

    Collection<URI> getURIs() { [uri] }

    String dumpMetadata() { tags }

    protected String createID() { "FileServer: ${uri}${arguments ?: ''}" }
}

class Host {
    Map job
    def project, imageData, said = new StringWriter()

    def run() {
        job.project ? openProject() : (imageData = opened(job.image))
        if (job.before)
            imageData.hierarchy.addObjects(PathIO.readObjects(new File(job.before)))
        def outcomes = job.scripts.collect { script, args -> outcome(script, args) }
        def shown = project == null ? [imageData] : project.imageList.collect { it.readImageData() }
        [outcomes: outcomes, said: said.toString(), images: shown.collect { described(it) }]
    }

    def opened(Map image) {
        def server = image.slide ? ImageServers.buildServer(new File(image.slide).toURI()) : pictured(image)
        (image.steps ?: []).each { name, value -> server = changed(server, name, value) }
        new ImageData(server)
    }

    def pictured(Map image) {
        def server = new FileServer(ImageIO.read(new File(image.picture)), image.name ?: 'renamed')
        server.uri = new URI(image.uri)
        server.tags = image.tags ? GsonTools.instance.toJson(image.tags) : null
        server.arguments = image.arguments
        server
    }

    def changed(server, String name, value) {
        if (name == 'crop')
            return new CroppedImageServer(server, ImageRegion.createInstance(*value.collect { it as int }, 0, 0))
        if (name == 'rotate')
            return new RotatedImageServer(server, RotatedImageServer.Rotation.valueOf(value))
        if (name == 'flip') {
            def kinds = Class.forName('qupath.lib.images.servers.FlippedImageServer$Flip')
            return new TransformedServerBuilder(server).flip(Enum.valueOf(kinds, value)).build()
        }
        new AffineTransformImageServer(server, java.awt.geom.AffineTransform.getShearInstance(0.1, 0))
    }

    def openProject() {
        project = Projects.createProject(new File(job.project), BufferedImage)
        job.images.each { image ->
            def server = opened(image).server
            def entry = project.addImage(server.builder)
            entry.imageName = image.name ?: 'renamed'
            entry.saveImageData(new ImageData(server))
        }
        project.syncChanges()
        imageData = job.open == null ? null : project.imageList[job.open as int].readImageData()
    }

    def outcome(String script, List args) {
        if (script == 'lock' || script == 'select')
            return marked(script, args)
        def binding = new Binding('qupath.script.file': script, args: args as String[], out: new PrintWriter(said, true))
        binding.setVariable('getCurrentImageData', { imageData })
        binding.setVariable('getProject', { project })
        def before = System.out
        System.out = new PrintStream(new WriterOutput(said), true)
        try {
            new GroovyShell(binding).evaluate(new File(script))
            return 'done'
        } catch (IllegalArgumentException problem) {
            return problem.message
        } finally {
            System.out = before
        }
    }

    def marked(String what, List names) {
        def objects = imageData.hierarchy.getAllObjects(false).findAll { it.name in names }
        what == 'lock' ? objects.each { it.locked = true } : imageData.hierarchy.selectionModel.setSelectedObjects(objects, null)
        'done'
    }

    def described(data) {
        def server = data.server
        def objects = data.hierarchy.getAllObjects(false).collect { object ->
            def roi = object.ROI
            def box = [roi.boundsX, roi.boundsY, roi.boundsWidth, roi.boundsHeight]
            def found = null
            try {
                found = GsonTools.instance.fromJson(GsonTools.instance.toJson(object, PathObject), JsonObject)
            } catch (StackOverflowError known) {
                // qupath#2115: lines of several parts are read, and cannot be written
            }
            [feature: found, kind: object.class.simpleName, outline: roi.geometry.toText(), box: box, colours: job.colours ? colours(server, box) : null]
        }
        [size: [server.width, server.height], objects: objects]
    }

    /** The colours of the pixels in a box, as #rrggbb. */
    def colours(server, List box) {
        def image = server.readRegion(RegionRequest.createInstance(server.path, 1.0, *box.collect { it as int }))
        def pixels = image.getRGB(0, 0, image.width, image.height, null, 0, image.width)
        pixels.toList().toSet().collect { String.format('#%06x', it & 0xffffff) }.sort()
    }
}

class WriterOutput extends OutputStream {
    Writer writer
    private bytes = new ByteArrayOutputStream()

    WriterOutput(Writer writer) { this.writer = writer }

    void write(int value) { bytes.write(value) }

    void flush() {
        writer.write(bytes.toString('UTF-8'))
        bytes.reset()
    }
}

def library = System.getProperty('openslide')
boolean slides = false
try {
    def loader = Class.forName('qupath.lib.images.servers.openslide.jna.OpenSlideLoader')
    slides = library && loader.tryToLoadQuietly(library)
} catch (ClassNotFoundException none) {
    // QuPath 0.4 brings an OpenSlide of its own
}
boolean flips = TransformedServerBuilder.methods.any { it.name == 'flip' }
println GsonTools.instance.toJson([version: GeneralTools.version, slides: slides, flips: flips])
System.in.eachLine('UTF-8') { line ->
    def answer
    try {
        answer = new Host(job: GsonTools.instance.fromJson(line, Map)).run()
    } catch (Throwable problem) {
        answer = [failure: problem.toString(), trace: problem.stackTrace*.toString().findAll { it.contains('.groovy') }]
    }
    println GsonTools.instance.toJson(answer)
    System.out.flush()
}
