package qupath.ext.wsiattention;

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** One run of `wsi-attention classify`, in a process of its own, so that nothing it does can harm QuPath. */
public final class Classification {

    /** Milliseconds that the processes have to end by themselves when a run is cancelled. */
    public static final long GRACE = 3000;

    private static final Pattern SLIDE = Pattern.compile("wsi-attention: (\\d+) of (\\d+): .*");
    private static final int KEPT = 5;

    private final List<String> command;
    private final Progress progress;
    private final Deque<String> last = new ArrayDeque<>();
    private Process process;
    private boolean cancelled;

    /**
     * @param found the command
     * @param settings model, results, options
     * @param table a slides CSV
     * @param progress is told how it goes on
     */
    public Classification(Command found, Settings settings, File table, Progress progress) {
        this.command = arguments(found.path(), settings, table);
        this.progress = progress;
    }

    private static List<String> arguments(String path, Settings settings, File table) {
        List<String> parts = new ArrayList<>(List.of(path, "classify", "--slides-csv", table.getPath(), "-o",
                settings.results(), "-m", settings.model(), "-v"));
        if (!settings.options().isBlank())
            parts.addAll(Arrays.asList(settings.options().strip().split("\\s+")));
        return parts;
    }

    /** Writes a slides CSV to a temporary file, from slide to mask; an empty mask is none. */
    public static File table(Map<String, String> masks) throws IOException {
        StringBuilder text = new StringBuilder("slide,mask\n");
        masks.forEach((slide, mask) -> text.append(quoted(slide)).append(',').append(quoted(mask)).append('\n'));
        Path path = Files.createTempFile("wsi-attention", ".csv");
        Files.writeString(path, text, StandardCharsets.UTF_8);
        return path.toFile();
    }

    private static String quoted(String text) {
        return '"' + text.replace("\"", "\"\"") + '"';
    }

    /**
     * Runs the command until it ends.
     *
     * @return whether every slide has a result; false where some failed
     * @throws Problem it could not be started, refused the call, or was cancelled
     */
    public boolean run() throws Problem, InterruptedException {
        progress.line(String.join(" ", command));
        start();
        try (BufferedReader reader = new BufferedReader(
                new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
            for (String line = reader.readLine(); line != null; line = reader.readLine())
                take(line);
        } catch (IOException ended) {
            // the pipe closes when the process is ended from here
        }
        int status = process.waitFor();
        if (isCancelled())
            throw new Problem("cancelled; slides that are finished are kept, and the same command does the rest");
        if (status != 0 && status != 1)
            throw new Problem("wsi-attention ended with status " + status + ": " + String.join(" ", last));
        return status == 0;
    }

    private synchronized void start() throws Problem {
        if (cancelled)
            throw new Problem("cancelled before it began");
        try {
            process = new ProcessBuilder(command).redirectErrorStream(true).start();
        } catch (IOException problem) {
            throw new Problem(command.get(0) + " cannot be started (" + problem.getMessage() + ")");
        }
    }

    private void take(String line) {
        last.addLast(line);
        if (last.size() > KEPT)
            last.removeFirst();
        Matcher found = SLIDE.matcher(line);
        if (found.matches())
            progress.slides(Integer.parseInt(found.group(1)), Integer.parseInt(found.group(2)));
        progress.line(line);
    }

    /** Ends the command with every process that it started. Waits {@link #GRACE} at most. */
    public void cancel() throws InterruptedException {
        Process running;
        synchronized (this) {
            cancelled = true;
            running = process;
        }
        if (running != null)
            Tree.end(running, GRACE);
    }

    private synchronized boolean isCancelled() {
        return cancelled;
    }
}
