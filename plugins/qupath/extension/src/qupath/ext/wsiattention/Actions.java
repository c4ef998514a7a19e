package qupath.ext.wsiattention;

import java.awt.image.BufferedImage;
import java.io.File;
import java.io.IOException;
import java.util.Map;
import qupath.lib.images.ImageData;
import qupath.lib.projects.Project;

/** What the menu does, without any window; runs in the thread that calls it. */
public final class Actions {

    private final Host host;
    private final Results results;
    private Classification running;
    private boolean cancelled;
    private Script.Kind lastKind;
    private Settings lastSettings;

    public Actions(Host host) throws Problem {
        this.host = host;
        this.results = new Results();
    }

    /** Classifies the open image and imports its result; gives a sentence on what came out. */
    public String classifyImage(Settings settings, Progress progress) throws Problem, InterruptedException {
        ImageData<BufferedImage> image = image();
        classify(results.slideOf(image.getServer(), settings), settings, progress);
        remember(Script.Kind.CLASSIFY_IMAGE, settings);
        return imported(image, settings);
    }

    /** Classifies all slides of the project in one run and imports into every image. */
    public String classifyProject(Settings settings, Progress progress) throws Problem, InterruptedException {
        Project<BufferedImage> project = project();
        Map<String, String> slides = results.slidesOf(project, settings);
        boolean all = classify(slides, settings, progress);
        remember(Script.Kind.CLASSIFY_PROJECT, settings);
        progress.line("importing into " + project.getImageList().size() + " images");
        int done = results.importIntoProject(project, host.image(), settings);
        return done + " of " + project.getImageList().size() + " images have results" + (all ? "" : "; "
                + new File(settings.results(), "predictions.csv") + " says why slides have none");
    }

    /** Imports the result of the open image from the results folder. */
    public String importResults(Settings settings) throws Problem {
        if (settings.results().isBlank())
            throw new Problem("no results folder is set: choose the one that wsi-attention classify wrote");
        remember(Script.Kind.IMPORT, settings);
        return imported(image(), settings);
    }

    /** Removes what was imported into the open image. */
    public String remove(Settings settings) throws Problem {
        ImageData<BufferedImage> image = image();
        remember(Script.Kind.REMOVE, settings);
        int removed = results.removeFrom(image);
        if (host.project() != null)
            results.tellProject(host.project(), image);
        return removed + " objects removed";
    }

    /** Shows the map of attention over the open image. */
    public void showMap() throws Problem {
        AttentionMap.show(host.overlay(), image());
    }

    /** The script of what was done last. */
    public synchronized String script() throws Problem {
        if (lastKind == null)
            throw new Problem("nothing was done yet that a script could do again");
        return Script.of(lastKind, lastSettings);
    }

    /** Ends a classification that is running, with all of its processes. */
    public void cancel() throws InterruptedException {
        Classification now;
        synchronized (this) {
            cancelled = true;
            now = running;
        }
        if (now != null)
            now.cancel();
    }

    private String imported(ImageData<BufferedImage> image, Settings settings) throws Problem {
        int objects = results.importInto(image, settings);
        String label = results.tellProject(host.project(), image);
        return (label.isEmpty() ? "" : label + ": ") + objects + " objects imported";
    }

    private boolean classify(Map<String, String> slides, Settings settings, Progress progress)
            throws Problem, InterruptedException {
        settings.check();
        begin();
        progress.line("looking for the command wsi-attention");
        Command command = Command.find(settings.command(), System.getenv("PATH"));
        progress.line("wsi-attention " + command.version() + " at " + command.path());
        File table = null;
        try {
            table = Classification.table(slides);
            return start(new Classification(command, settings, table, progress)).run();
        } catch (IOException problem) {
            throw new Problem("the list of slides cannot be written to the folder for temporary files ("
                    + problem.getMessage() + ")");
        } finally {
            ended();
            if (table != null)
                table.delete();
        }
    }

    private synchronized Classification start(Classification one) throws InterruptedException {
        running = one;
        if (cancelled)
            one.cancel();
        return one;
    }

    private synchronized void begin() {
        cancelled = false;
    }

    private synchronized void ended() {
        running = null;
    }

    private synchronized void remember(Script.Kind kind, Settings settings) {
        lastKind = kind;
        lastSettings = settings;
    }

    private ImageData<BufferedImage> image() throws Problem {
        if (host.image() == null)
            throw new Problem("no image is open");
        return host.image();
    }

    private Project<BufferedImage> project() throws Problem {
        if (host.project() == null)
            throw new Problem("no project is open");
        return host.project();
    }
}
