import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import groovy.lang.Binding;
import groovy.lang.Closure;
import groovy.lang.GroovyShell;
import java.awt.image.BufferedImage;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.Collection;
import java.util.List;
import javafx.stage.Window;
import qupath.ext.wsiattention.Actions;
import qupath.ext.wsiattention.AttentionMap;
import qupath.ext.wsiattention.Command;
import qupath.ext.wsiattention.Host;
import qupath.ext.wsiattention.Problem;
import qupath.ext.wsiattention.Progress;
import qupath.ext.wsiattention.Settings;
import qupath.lib.gui.viewer.OverlayOptions;
import qupath.lib.images.ImageData;
import qupath.lib.images.servers.WrappedBufferedImageServer;
import qupath.lib.io.GsonTools;
import qupath.lib.projects.Project;
import qupath.lib.projects.ProjectIO;
import qupath.lib.projects.ProjectImageEntry;

/** Runs the extension inside QuPath's own classes: a job a line comes in as JSON, its outcome goes out. */
public class Drive {

    /** A blank picture as the file of a slide. */
    static class FileServer extends WrappedBufferedImageServer {

        private final URI uri;

        FileServer(URI uri, int width, int height) {
            super("renamed in QuPath", new BufferedImage(width, height, BufferedImage.TYPE_INT_RGB));
            this.uri = uri;
        }

        @Override
        public Collection<URI> getURIs() {
            return List.of(uri);
        }

        @Override
        protected String createID() {
            return "FileServer: " + uri;
        }
    }

    /** A QuPath without a window. */
    static class Headless implements Host {

        ImageData<BufferedImage> image;
        Project<BufferedImage> project;
        OverlayOptions overlay;

        @Override
        public ImageData<BufferedImage> image() {
            return image;
        }

        @Override
        public Project<BufferedImage> project() {
            return project;
        }

        @Override
        public OverlayOptions overlay() {
            if (overlay == null)
                overlay = new OverlayOptions();
            return overlay;
        }

        @Override
        public Window window() {
            return null;
        }

        @Override
        public void refreshProject() {
        }
    }

    static class Lines implements Progress {

        final JsonArray lines = new JsonArray();
        final JsonArray counts = new JsonArray();
        volatile Runnable onLine = () -> { };

        @Override
        public synchronized void line(String text) {
            lines.add(text);
            onLine.run();
        }

        @Override
        public synchronized void slides(int done, int total) {
            counts.add(done + "/" + total);
        }
    }

    static final Headless host = new Headless();
    static Actions actions;

    public static void main(String[] arguments) throws Exception {
        PrintStream out = System.out;
        Class.forName("qupath.lib.images.servers.ImageServers"); // tells JSON what servers are, as at QuPath's own start
        actions = new Actions(host);
        BufferedReader reader = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = reader.readLine(); line != null; line = reader.readLine()) {
            JsonObject answer = new JsonObject();
            ByteArrayOutputStream said = new ByteArrayOutputStream();
            System.setOut(new PrintStream(said, true, StandardCharsets.UTF_8));
            try {
                run(GsonTools.getInstance().fromJson(line, JsonObject.class), answer);
            } catch (Problem problem) {
                answer.addProperty("problem", problem.getMessage());
            } catch (Throwable failure) {
                failure.printStackTrace();
                answer.addProperty("failure", failure.toString());
            }
            answer.addProperty("said", said.toString(StandardCharsets.UTF_8));
            out.println(GsonTools.getInstance().toJson(answer));
            out.flush();
        }
    }

    static void run(JsonObject job, JsonObject answer) throws Exception {
        switch (text(job, "do")) {
            case "find" -> {
                Command found = Command.find(text(job, "command"), text(job, "path"));
                answer.addProperty("path", found.path());
                answer.addProperty("version", found.version());
            }
            case "open" -> open(job);
            case "project" -> openProject(job, answer);
            case "classify" -> classify(job, answer);
            case "import" -> answer.addProperty("outcome", actions.importResults(settings(job)));
            case "remove" -> answer.addProperty("outcome", actions.remove(settings(job)));
            case "map" -> map(answer);
            case "script" -> answer.addProperty("script", actions.script());
            case "run" -> runScript(text(job, "script"), answer);
            default -> throw new IllegalArgumentException(job.toString());
        }
        if (host.image != null)
            describe(answer);
    }

    static void open(JsonObject job) throws Exception {
        host.project = null;
        host.image = new ImageData<>(new FileServer(new URI(text(job, "uri")), job.get("w").getAsInt(), job.get("h").getAsInt()));
    }

    static void openProject(JsonObject job, JsonObject answer) throws Exception {
        host.project = ProjectIO.loadProject(new File(text(job, "file")), BufferedImage.class);
        host.image = host.project.getImageList().get(0).readImageData();
        JsonArray images = new JsonArray();
        for (ProjectImageEntry<BufferedImage> entry : host.project.getImageList()) {
            JsonObject image = new JsonObject();
            image.addProperty("name", entry.getImageName());
            image.addProperty("id", entry.getID());
            image.addProperty("uris", entry.getURIs().toString());
            image.add("metadata", GsonTools.getInstance().toJsonTree(entry.getMetadataMap()));
            image.addProperty("objects", entry.readHierarchy().getAllObjects(false).size());
            images.add(image);
        }
        answer.add("images", images);
    }

    static void classify(JsonObject job, JsonObject answer) throws Exception {
        Lines lines = new Lines();
        String when = text(job, "cancelAt");
        lines.onLine = () -> {
            if (!when.isEmpty() && lines.lines.get(lines.lines.size() - 1).getAsString().contains(when)) {
                lines.onLine = () -> { };
                new Thread(() -> {
                    try {
                        actions.cancel();
                    } catch (InterruptedException stopped) {
                        Thread.currentThread().interrupt();
                    }
                }).start();
            }
        };
        answer.add("lines", lines.lines);
        answer.add("counts", lines.counts);
        boolean all = job.has("project");
        answer.addProperty("outcome", all ? actions.classifyProject(settings(job), lines)
                : actions.classifyImage(settings(job), lines));
    }

    static void map(JsonObject answer) throws Exception {
        actions.showMap();
        var mapper = host.overlay().getMeasurementMapper();
        answer.addProperty("valid", mapper.isValid());
        answer.addProperty("min", mapper.getDataMinValue());
        answer.addProperty("max", mapper.getDataMaxValue());
        AttentionMap.hide(host.overlay());
        answer.addProperty("hidden", host.overlay().getMeasurementMapper() == null);
    }

    static void runScript(String script, JsonObject answer) {
        Binding binding = new Binding();
        binding.setVariable("args", new String[0]);
        binding.setVariable("getCurrentImageData", new Closure<Object>(null) {
            public Object doCall() {
                return host.image;
            }
        });
        binding.setVariable("getProject", new Closure<Object>(null) {
            public Object doCall() {
                return host.project;
            }
        });
        new GroovyShell(Drive.class.getClassLoader(), binding).evaluate(script);
        try {
            if (host.project != null) {
                host.project.getEntry(host.image).saveImageData(host.image);
                host.project.syncChanges();
            }
        } catch (Exception problem) {
            throw new IllegalStateException(problem);
        }
    }

    static Settings settings(JsonObject job) {
        return new Settings(text(job, "command"), text(job, "model"), text(job, "results"), text(job, "options"), text(job, "masks"));
    }

    static void describe(JsonObject answer) {
        JsonArray kinds = new JsonArray();
        host.image.getHierarchy().getAllObjects(false).forEach(one -> kinds.add(one.getClass().getSimpleName()));
        answer.add("objects", kinds);
        Object label = host.image.getProperty("wsi-attention label");
        answer.addProperty("label", label == null ? "" : label.toString());
        if (host.project != null) {
            ProjectImageEntry<BufferedImage> entry = host.project.getEntry(host.image);
            answer.addProperty("listed", entry == null ? null : entry.getMetadataValue("wsi-attention label"));
        }
    }

    static String text(JsonObject job, String name) {
        JsonElement found = job.get(name);
        return found == null ? "" : found.getAsString();
    }
}
