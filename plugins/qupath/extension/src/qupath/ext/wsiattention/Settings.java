package qupath.ext.wsiattention;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * What the user chose.
 *
 * @param command full path of wsi-attention; empty to look for it
 * @param model the model's folder, or demo
 * @param results the results folder
 * @param options further options of the command, with spaces between
 * @param masks a folder with tissue masks; empty for none
 */
public record Settings(String command, String model, String results, String options, String masks) {

    /** Settings as the scripts know them. */
    public Map<String, Object> forScripts() {
        Map<String, Object> found = new LinkedHashMap<>();
        found.put("command", command.isBlank() ? "wsi-attention" : command);
        found.put("model", model);
        found.put("results", results);
        found.put("options", options);
        found.put("masks", masks);
        found.put("geojson", "");
        found.put("series", 0);
        return found;
    }

    /** Refuses what cannot work, before anything starts. */
    void check() throws Problem {
        if (model.isBlank())
            throw new Problem("no model is set: choose the folder that wsi-attention train wrote");
        if (results.isBlank())
            throw new Problem("no results folder is set: choose one, it is made where there is none");
    }

    public Settings withCommand(String path) {
        return new Settings(path, model, results, options, masks);
    }
}
