import com.google.gson.JsonObject
import java.awt.geom.AffineTransform
import org.locationtech.jts.geom.Geometry
import qupath.lib.common.GeneralTools
import qupath.lib.io.GsonTools
import qupath.lib.objects.PathObject
import qupath.lib.objects.PathObjectTools
import qupath.lib.roi.GeometryTools
import qupath.lib.roi.RoiTools

/** What the scripts beside this file do. Nothing is needed but what QuPath 0.4 to 0.7 ships. */
class WsiAttention {

    /** Property of the image that keeps the ids of what was imported; QuPath saves it with the image. */
    static final String ADDED = 'wsi-attention: imported objects'

    /** Property of the image, and metadata in the project, with its label. */
    static final String LABEL = 'wsi-attention label'

    /** A script's settings, those given as key=value on the command line (--args) put over them. */
    static Map settings(Map chosen, args) {
        check(PathObject.methods.any { it.name == 'getID' }, "QuPath 0.4 or later is needed, this is ${GeneralTools.version}")
        Map found = new LinkedHashMap(chosen)
        (args ?: []).each { given ->
            String text = given.toString(), key = text.tokenize('=')[0]
            check(text.contains('=') && chosen.containsKey(key),
                "unknown setting ${text}; possible: ${chosen.keySet().collect { it + '=' }.join(' ')}")
            found[key] = text.substring(key.length() + 1)
        }
        found
    }

    /** Imports the result of an image, in place of an earlier import, and gives the number of objects. */
    static int importResults(imageData, Map settings) {
        def server = needed(imageData).server
        File file = WsiAttentionFiles.resultOf(server, settings)
        JsonObject collection = WsiAttentionFiles.readResult(file), about = WsiAttentionFiles.metadataOf(collection)
        AffineTransform move = WsiAttentionFrame.ofResult(server, settings.series as int, about, file.name)
        move.translate(*WsiAttentionFrame.numbers(about, 'offset'))
        List objects = WsiAttentionFiles.readObjects(file, collection)
        if (!move.identity)
            objects = objects.collect { PathObjectTools.transformObject(it, move, true, false) }
        removeResults(imageData, [:])
        imageData.hierarchy.addObjects(objects)
        imageData.setProperty(ADDED, objects.collect { it.ID.toString() }.join(' '))
        imageData.setProperty(LABEL, labelOf(about))
        println "wsi-attention: ${objects.size()} objects from ${file.name}, label ${labelOf(about)}"
        objects.size()
    }

    /** Removes what was imported and not locked since, and nothing else; what others put inside stays. */
    static int removeResults(imageData, Map settings) {
        Set ids = added(needed(imageData))
        if (settings.geojson || settings.results)
            ids += WsiAttentionFiles.idsOf(WsiAttentionFiles.readResult(WsiAttentionFiles.resultOf(imageData.server, settings)))
        Collection ours = imageData.hierarchy.getAllObjects(false).findAll { it.ID.toString() in ids && !it.locked }
        imageData.hierarchy.removeObjects(ours, true)
        imageData.removeProperty(ADDED)
        imageData.removeProperty(LABEL)
        ours.size()
    }

    /**
     * Writes regions as a tissue mask for `wsi-attention classify`, and its row in slides.csv beside it: annotations of
     * the given classes, or the selected ones, or all that were not imported and whose class is not ignored.
     */
    static File exportMask(imageData, Map settings) {
        def server = needed(imageData).server
        String name = WsiAttentionFrame.nameOf(server)
        Collection regions = regionsOf(imageData, settings)
        check(!regions.isEmpty(), "${name}: no annotation with an area to make a mask of; draw or select one")
        AffineTransform back = WsiAttentionFrame.ofImage(server, settings.series as int).createInverse()
        Geometry area = GeometryTools.union(regions.collect { RoiTools.transformROI(it.ROI, back).geometry })
        File mask = new File(WsiAttentionFiles.madeFolder(settings.masks), "${name}.geojson")
        String about = GsonTools.instance.toJson([slide: name]), outline = GsonTools.instance.toJson(area, Geometry)
        String frame = '{"offset":[0,0]}'  // level-0 pixels, whatever the slide's bounds
        mask.setText("""{"type":"Feature","geometry":${outline},"properties":${about},"metadata":${frame}}""", 'UTF-8')
        WsiAttentionFiles.listMask(new File(mask.parentFile, 'slides.csv'), WsiAttentionFrame.fileOf(server), mask.name)
        println "wsi-attention: ${regions.size()} regions to ${mask}"
        mask
    }

    static int classifyImage(imageData, Map settings) {
        classify([WsiAttentionFrame.fileOf(needed(imageData).server)], settings)
        importResults(imageData, settings)
    }

    /** Classifies all slides of a project in one go and imports into every image; those that cannot take it are named. */
    static int classifyProject(project, openImage, Map settings) {
        check(project != null, 'no project is open')
        classify(slidesOf(project), settings)
        importProject(project, openImage, settings)
    }

    /** Imports into every image of a project; those that cannot take it are named. Gives the number of the others. */
    static int importProject(project, openImage, Map settings) {
        int done = project.imageList.count { importInto(it, project, openImage, settings) }
        project.syncChanges()
        done
    }

    /** The files of all slides of a project, each once. */
    static List<File> slidesOf(project) {
        check(project != null, 'no project is open')
        project.imageList.collectMany { it.URIs.collect { uri -> WsiAttentionFrame.fileOf(uri) } }.unique()
    }

    /** Writes the label of an image into the project's metadata, or removes it where there is none; gives the label. */
    static String tellProject(project, imageData) {
        String label = (imageData.getProperty(LABEL) ?: '').toString()
        def entry = project?.getEntry(imageData)
        if (entry != null)
            label ? entry.putMetadataValue(LABEL, label) : entry.removeMetadataValue(LABEL)
        label
    }

    /** Runs `wsi-attention classify` on slides; masks that `exportMask` wrote go along. */
    static void classify(List<File> slides, Map settings) {
        check(settings.model as boolean, 'no model was given; name the folder that wsi-attention train wrote: model=FOLDER')
        Map masks = settings.masks ? WsiAttentionFiles.readMasks(new File(settings.masks.toString(), 'slides.csv')) : [:]
        File results = WsiAttentionFiles.madeFolder(settings.results)
        File table = File.createTempFile('wsi-attention', '.csv')
        try {
            WsiAttentionFiles.writeSlides(table, slides.unique().collectEntries { [it.path, masks[it.path] ?: ''] })
            run([settings.command, 'classify', '--slides-csv', table.path, '-o', results.path, '-m', settings.model] +
                settings.options.toString().tokenize(' '))
        } finally {
            table.delete()
        }
    }

    private static boolean importInto(entry, project, openImage, Map settings) {
        boolean isOpen = openImage != null && project.getEntry(openImage) == entry
        def imageData = isOpen ? openImage : entry.readImageData()
        try {
            importResults(imageData, settings)
            tellProject(project, imageData)
            if (!isOpen)
                entry.saveImageData(imageData)
            return true
        } catch (IllegalArgumentException problem) {
            println "wsi-attention: ${entry.imageName} left out: ${problem.message}"
            return false
        } finally {
            if (!isOpen)
                imageData.server.close()
        }
    }

    /** The label with what it is worth, such as "lesion (demonstration model)"; empty where a result says none. */
    private static String labelOf(JsonObject about) {
        String label = textOf(about, 'label'), purpose = textOf(about, 'purpose')
        label && purpose ? "${label} (${purpose} model)" : label
    }

    private static String textOf(JsonObject about, String name) {
        def found = about.get(name)
        found?.isJsonPrimitive() ? found.asString : ''
    }

    private static void run(List command) {
        println "wsi-attention: ${command.join(' ')}"
        Process process
        try {
            process = new ProcessBuilder(command*.toString()).redirectErrorStream(true).start()
        } catch (IOException problem) {
            throw new IllegalArgumentException("${command[0]} cannot be started (${problem.message}); set command to the " +
                'full path of wsi-attention, such as /home/me/venv/bin/wsi-attention')
        }
        process.inputStream.eachLine('UTF-8') { println it }
        int status = process.waitFor()
        check(status in [0, 1], "wsi-attention ended with status ${status}; its message stands above")
    }

    private static Collection regionsOf(imageData, Map settings) {
        Set imported = added(imageData)
        List classes = settings.classes.toString().tokenize(',')*.trim()
        Collection areas = imageData.hierarchy.annotationObjects.findAll { it.ROI?.area }
        Collection selected = areas.findAll { it in imageData.hierarchy.selectionModel.selectedObjects }
        if (classes)
            return areas.findAll { it.pathClass?.toString() in classes }
        selected ?: areas.findAll { !(it.ID.toString() in imported) && !it.pathClass?.toString()?.endsWith('*') }
    }

    private static Set<String> added(imageData) {
        (imageData.getProperty(ADDED) ?: '').toString().tokenize(' ') as Set
    }

    private static needed(imageData) {
        check(imageData != null, 'no image is open')
        imageData
    }

    private static void check(condition, String problem) {
        WsiAttentionFrame.check(condition, problem)
    }
}
