package qupath.ext.wsiattention;

import java.util.stream.Collectors;

/** What was done, as a script for QuPath's script editor: it does the same again, without a window too. */
public final class Script {

    /** What a script does; `call` is a line of Groovy in which wsi and settings are known. */
    public enum Kind {
        CLASSIFY_IMAGE("wsi.classifyImage(getCurrentImageData(), settings)"),
        CLASSIFY_PROJECT("println \"wsi-attention: ${wsi.classifyProject(getProject(), getCurrentImageData(), settings)}"
                + " images have results\""),
        IMPORT("wsi.importResults(getCurrentImageData(), settings)"),
        REMOVE("println \"wsi-attention: ${wsi.removeResults(getCurrentImageData(), [:])} objects removed\"");

        private final String call;

        Kind(String call) {
            this.call = call;
        }
    }

    private Script() {
    }

    /** The script of what was done with these settings. */
    public static String of(Kind kind, Settings settings) {
        String values = settings.forScripts().entrySet().stream()
                .map(one -> "    " + one.getKey() + ": " + literal(one.getValue()) + ",")
                .collect(Collectors.joining("\n"));
        return String.join("\n",
                "// wsi-attention in QuPath; the extension must be installed. Settings can be given with --args key=value.",
                "def loader = new GroovyClassLoader(qupath.ext.wsiattention.Script.classLoader)",
                "def wsi = loader.loadClass('WsiAttention')",
                "",
                "def settings = wsi.settings([",
                values,
                "], args)",
                "",
                kind.call,
                "");
    }

    private static String literal(Object value) {
        if (value instanceof Number)
            return value.toString();
        return "'" + value.toString().replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'";
    }
}
