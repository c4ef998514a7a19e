package qupath.ext.wsiattention;

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The command wsi-attention of some Python environment: where it is, and whether it is new enough. */
public final class Command {

    /** The oldest version that tells its progress as {@link Classification} reads it. */
    public static final String OLDEST = "0.1.0";

    private static final String NAME = "wsi-attention";
    private static final long SECONDS = 120;
    private static final Pattern VERSION = Pattern.compile("(\\d+)\\.(\\d+)\\.(\\d+)\\S*");

    private final String path;
    private final String version;

    private Command(String path, String version) {
        this.path = path;
        this.version = version;
    }

    public String path() {
        return path;
    }

    public String version() {
        return version;
    }

    /**
     * Finds the command and asks for its version.
     *
     * @param given the full path from the settings; where it is empty, the folders of PATH and ~/.local/bin are searched
     * @param folders the value of PATH
     * @throws Problem there is none, it does not start, or it is too old
     */
    public static Command find(String given, String folders) throws Problem, InterruptedException {
        String path = given.isBlank() ? searched(folders) : there(given.strip());
        String said = said(path);
        Matcher found = VERSION.matcher(said.strip());
        if (!found.matches())
            throw new Problem(path + " is no wsi-attention: asked for its version it said \"" + shortened(said) + "\"");
        if (compare(said.strip(), OLDEST) < 0)
            throw new Problem(path + " is version " + said.strip() + ", this extension needs " + OLDEST
                    + " or later: pip install --upgrade wsi-attention");
        return new Command(path, said.strip());
    }

    private static String there(String given) throws Problem {
        if (!new File(given).isFile())
            throw new Problem(given + ": no such file; set the full path of the command wsi-attention in the settings");
        return given;
    }

    private static String searched(String folders) throws Problem {
        List<String> places = new ArrayList<>(List.of((folders == null ? "" : folders).split(File.pathSeparator)));
        places.add(System.getProperty("user.home") + "/.local/bin");
        for (String place : places)
            for (String ending : List.of("", ".exe")) {
                File file = new File(place, NAME + ending);
                if (!place.isBlank() && file.isFile() && Files.isExecutable(file.toPath()))
                    return file.getPath();
            }
        throw new Problem("wsi-attention is not found; install it in a Python environment (pip install wsi-attention), "
                + "then set the full path of the command in the settings, such as /home/me/venv/bin/wsi-attention");
    }

    /** What the command says of its version, on standard output. */
    private static String said(String path) throws Problem, InterruptedException {
        Process process;
        try {
            process = new ProcessBuilder(path, "--version").redirectError(ProcessBuilder.Redirect.DISCARD).start();
        } catch (IOException problem) {
            throw new Problem(path + " cannot be started (" + problem.getMessage() + "); set another command");
        }
        try {
            if (!process.waitFor(SECONDS, TimeUnit.SECONDS))
                throw new Problem(path + " has not told its version within " + SECONDS + " s; try it in a terminal");
            if (process.exitValue() != 0)
                throw new Problem(path + " ended with status " + process.exitValue() + " when asked for its version; "
                        + "try it in a terminal: wsi-attention doctor");
            try (BufferedReader reader = new BufferedReader(
                    new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
                String line = reader.readLine();
                return line == null ? "" : line;
            }
        } catch (IOException problem) {
            throw new Problem(path + " cannot be read (" + problem.getMessage() + ")");
        } finally {
            Tree.end(process, 0);
        }
    }

    /** Compares versions by their three numbers. */
    static int compare(String one, String other) {
        Matcher a = VERSION.matcher(one);
        Matcher b = VERSION.matcher(other);
        if (!a.matches() || !b.matches())
            throw new IllegalArgumentException(one + ", " + other);
        for (int i = 1; i <= 3; i++) {
            int difference = Integer.compare(Integer.parseInt(a.group(i)), Integer.parseInt(b.group(i)));
            if (difference != 0)
                return difference;
        }
        return 0;
    }

    private static String shortened(String text) {
        return text.length() > 80 ? text.substring(0, 80) + "…" : text;
    }
}
