import com.google.gson.JsonElement
import com.google.gson.JsonObject
import com.google.gson.JsonParseException
import java.nio.file.Files
import java.util.zip.GZIPInputStream
import java.util.zip.ZipException
import org.locationtech.jts.geom.Geometry
import qupath.lib.io.GsonTools
import qupath.lib.io.PathIO

/** Files that go to and fro: a results folder with its GeoJSON, and tissue masks with their list. */
class WsiAttentionFiles {

    private static final String TELLS_WHY = 'wsi-attention validate tells why'

    /** The GeoJSON of an image: the file that is set, or that of its slide in the results folder. */
    static File resultOf(server, Map settings) {
        if (settings.geojson)
            return new File(settings.geojson.toString())
        File results = folder(settings.results)
        List<File> found = chosen(server, results, new File(results, 'geojson'))
        String name = WsiAttentionFrame.nameOf(server)
        check(!found.isEmpty(), "${results}: no result for ${name}; was it classified under another name? Then name the " +
            'file: geojson=…')
        check(found.size() == 1, "${results}: several results for ${name}: ${found*.path.join(', ')}; name one: geojson=…")
        found[0]
    }

    /** A GeoJSON as JSON; it must say which slide and size it is for. */
    static JsonObject readResult(File file) {
        JsonObject collection = readJson(file), about = metadataOf(collection)
        check(collection.get('features')?.isJsonArray() && about?.has('extent') && about?.has('offset'),
            "${file.name}: no result of wsi-attention (it does not say which slide and size it is for)")
        collection
    }

    /** The objects of a GeoJSON as QuPath reads them: all of them, or none. */
    static List readObjects(File file, JsonObject collection) {
        int wanted = collection.getAsJsonArray('features').size()
        List objects
        def crossing
        try {
            crossing = collection.getAsJsonArray('features').find { crosses(it.asJsonObject) }
            objects = PathIO.readObjects(file)
        } catch (IOException | RuntimeException problem) {
            throw new IllegalArgumentException("${file.name}: QuPath cannot read it (${problem.message}); " + TELLS_WHY)
        }
        check(crossing == null, "${file.name}: the outline of ${crossing?.asJsonObject?.get('id')} crosses itself; " +
            TELLS_WHY)
        check(objects.size() == wanted, "${file.name}: QuPath read ${objects.size()} of ${wanted} objects; " + TELLS_WHY)
        objects
    }

    /** QuPath 0.4 and 0.5 repair an outline that crosses itself without a word, so it is looked at before. */
    private static boolean crosses(JsonObject feature) {
        feature.getAsJsonObject('properties').get('objectType')?.asString != 'tile' &&
            !GsonTools.instance.fromJson(feature.getAsJsonObject('geometry'), Geometry).valid
    }

    static Set<String> idsOf(JsonObject collection) {
        collection.getAsJsonArray('features').collect { it.asJsonObject.get('id')?.asString } as Set
    }

    static JsonObject metadataOf(JsonObject collection) {
        def found = collection.get('metadata')
        found?.isJsonObject() ? found.asJsonObject : null
    }

    /** Slide path to mask path, of a list that `listMask` wrote; empty where there is none. */
    static Map<String, String> readMasks(File table) {
        if (!table.isFile())
            return [:]
        table.readLines('UTF-8').drop(1).collectEntries { line ->
            def cells = (line =~ /"((?:[^"]|"")*)"/).collect { it[1].replace('""', '"') }
            [cells[0], new File(table.parentFile, cells[1]).path]
        }
    }

    static void listMask(File table, File slide, String mask) {
        Map rows = readMasks(table).collectEntries { path, file -> [path, new File(file).name] }
        writeSlides(table, rows + [(slide.path): mask])
    }

    /** A slides CSV for `wsi-attention classify`, from slide path to mask path. */
    static void writeSlides(File table, Map<String, String> masks) {
        List rows = masks.collect { slide, mask -> "${quoted(slide)},${quoted(mask)}" }
        table.setText((['slide,mask'] + rows).join('\n') + '\n', 'UTF-8')
    }

    static File folder(given) {
        check(given, 'no folder is set; edit the top of the script, or give it with --args')
        File found = new File(given.toString())
        check(found.isDirectory(), "${found}: no such folder")
        found
    }

    static File madeFolder(given) {
        if (given)
            new File(given.toString()).mkdirs()
        folder(given)
    }

    /** By file name, of a file and its compressed twin the newer; those whose own name fits first, so that few files are opened. By place where several are left. */
    private static List<File> chosen(server, File results, File home) {
        check(home.isDirectory(), "${results}: no results of wsi-attention there (no folder geojson)")
        List names = server.URIs.collectMany { WsiAttentionFrame.partsOf(it).reverse().take(2) }
        List<File> all = []
        home.eachFileRecurse { if (it.name ==~ /.*\.geojson(\.gz)?/) all << it }
        all = all.groupBy { stem(it.path) }.values().collect { twins -> twins.max { it.lastModified() } }
        def (likely, rest) = all.sort().split { file -> names.any { it.startsWith(stem(file.name)) } }
        def isHere = { File file -> metadataOf(readJson(file))?.get('slide')?.asString in names }
        List found = likely.findAll(isHere) ?: rest.findAll(isHere)
        found.size() < 2 ? found : found.findAll { placeOf(results, home, it) == WsiAttentionFrame.fileOf(server) } ?: found
    }

    /** Where the slide of a result lay when it was classified. */
    private static File placeOf(File results, File home, File geojson) {
        String name = stem(home.toPath().relativize(geojson.toPath()).toString())
        File state = new File(results, "states/${name}.json")
        state.isFile() ? new File(readJson(state).get('path').asString) : null
    }

    private static String stem(String name) {
        name.replaceAll(/\.geojson(\.gz)?$/, '')
    }

    private static JsonObject readJson(File file) {
        check(file.isFile(), "${file}: no such file")
        try {
            def stream = Files.newInputStream(file.toPath())
            stream = file.name.endsWith('.gz') ? new GZIPInputStream(stream) : stream
            JsonElement found = stream.withReader('UTF-8') { GsonTools.instance.fromJson(it, JsonElement) }
            check(found?.isJsonObject(), "${file.name}: no JSON object")
            return found.asJsonObject
        } catch (JsonParseException | ZipException | EOFException problem) {
            throw new IllegalArgumentException("${file.name}: not readable (${problem.message})")
        }
    }

    private static String quoted(text) {
        '"' + text.toString().replace('"', '""') + '"'
    }

    private static void check(condition, String problem) {
        WsiAttentionFrame.check(condition, problem)
    }
}
