package qupath.ext.wsiattention;

import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import java.awt.image.BufferedImage;
import java.io.File;
import java.net.URI;
import java.util.Collection;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.FutureTask;
import java.util.function.Predicate;
import javafx.application.Platform;
import javafx.embed.swing.SwingFXUtils;
import javafx.scene.Node;
import javafx.scene.control.Button;
import javafx.scene.control.ButtonType;
import javafx.scene.control.DialogPane;
import javafx.scene.control.Label;
import javafx.scene.control.Menu;
import javafx.scene.control.MenuBar;
import javafx.scene.control.MenuItem;
import javafx.scene.control.TextArea;
import javafx.scene.control.TextField;
import javafx.scene.Scene;
import javafx.scene.input.Clipboard;
import javafx.scene.layout.BorderPane;
import javafx.stage.Stage;
import javafx.stage.Window;
import javax.imageio.ImageIO;
import qupath.lib.gui.viewer.OverlayOptions;
import qupath.lib.images.ImageData;
import qupath.lib.images.servers.WrappedBufferedImageServer;
import qupath.lib.io.GsonTools;
import qupath.lib.projects.Project;

/**
 * Uses the menu as a person does, on a screen: chooses items, types into the dialog, presses its buttons. Arguments: URI of
 * the slide, its width and height, command, model, results, and a folder for pictures of the windows.
 */
public class DriveMenu {

    static final long PATIENCE = 60_000;
    static Stage main;
    static Menu menu;
    static File pictures;

    static class Screen implements Host {

        private final ImageData<BufferedImage> image;
        private final OverlayOptions overlay = new OverlayOptions();

        Screen(URI uri, int width, int height) throws Exception {
            BufferedImage picture = new BufferedImage(width, height, BufferedImage.TYPE_INT_RGB);
            image = new ImageData<>(new WrappedBufferedImageServer("slide", picture) {
                @Override
                public Collection<URI> getURIs() {
                    return List.of(uri);
                }
            });
        }

        @Override
        public ImageData<BufferedImage> image() {
            return image;
        }

        @Override
        public Project<BufferedImage> project() {
            return null;
        }

        @Override
        public OverlayOptions overlay() {
            return overlay;
        }

        @Override
        public Window window() {
            return main;
        }

        @Override
        public void refreshProject() {
        }
    }

    public static void main(String[] given) {
        try {
            use(given);
            System.exit(0);
        } catch (Throwable problem) {
            problem.printStackTrace(); // the screen's own thread would keep the program from ending
            System.exit(1);
        }
    }

    static void use(String[] given) throws Exception {
        pictures = new File(given[6]);
        JsonObject found = new JsonObject();
        FutureTask<Void> started = new FutureTask<>(() -> null);
        Platform.startup(started);
        started.get();
        Platform.setImplicitExit(false);
        Screen host = new Screen(new URI(given[0]), Integer.parseInt(given[1]), Integer.parseInt(given[2]));
        fx(() -> {
            menu = new Menu("wsi-attention");
            menu.getItems().addAll(new WsiAttentionMenu(host, new Preferences()).items());
            main = new Stage();
            main.setScene(new Scene(new BorderPane(null, new MenuBar(menu), null, null, null), 500, 120));
            main.show();
            return null;
        });
        JsonArray names = new JsonArray();
        menu.getItems().forEach(one -> names.add(one.getText() == null ? "-" : one.getText()));
        found.add("items", names);
        found.addProperty("early script", choose("Copy as script"));
        found.addProperty("early map", choose("Show attention map"));
        fill("Classify image…", given);
        found.addProperty("outcome", ended("classified"));
        found.addProperty("objects", host.image().getHierarchy().getAllObjects(false).size());
        choose("Show attention map");
        found.addProperty("map", fx(() -> host.overlay().getMeasurementMapper() != null));
        choose("Hide attention map");
        found.addProperty("hidden", fx(() -> host.overlay().getMeasurementMapper() == null));
        choose("Copy as script");
        found.addProperty("script", fx(() -> Clipboard.getSystemClipboard().getString()));
        choose("Remove results");
        found.addProperty("removed", ended("removed"));
        found.addProperty("kept", new Preferences().load().model());
        System.out.println(GsonTools.getInstance().toJson(found));
    }

    /** Chooses an item; gives the text of the message that it showed, which is closed again. */
    static String choose(String name) throws Exception {
        fx(() -> {
            item(name).fire();
            return null;
        });
        Window message = window(one -> one != main && pane(one) != null, 300);
        if (message == null)
            return "";
        return fx(() -> {
            String text = pane(message).getContentText();
            message.hide();
            return text;
        });
    }

    /** Chooses an item that asks for settings, types them and confirms. */
    static void fill(String name, String[] given) throws Exception {
        Platform.runLater(() -> item(name).fire());
        Window dialog = window(one -> pane(one) != null && pane(one).lookup("#wsi-attention-model") != null, PATIENCE);
        fx(() -> {
            type(dialog, "command", given[3]);
            type(dialog, "model", given[4]);
            type(dialog, "results", given[5]);
            return null;
        });
        picture(dialog, "settings");
        fx(() -> {
            ((Button) pane(dialog).lookupButton(ButtonType.OK)).fire();
            return null;
        });
    }

    /** Waits until the window of the progress has ended; gives what it says, and closes it. */
    static String ended(String name) throws Exception {
        Window window = window(one -> button(one) != null && button(one).getText().equals("Close"), PATIENCE);
        picture(window, name);
        return fx(() -> {
            String said = ((Label) window.getScene().getRoot().lookup(".label")).getText();
            button(window).fire();
            return said;
        });
    }

    static MenuItem item(String name) {
        return menu.getItems().stream().filter(one -> name.equals(one.getText())).findFirst().orElseThrow();
    }

    static void type(Window dialog, String field, String text) {
        ((TextField) pane(dialog).lookup("#wsi-attention-" + field)).setText(text);
    }

    static DialogPane pane(Window window) {
        return window.getScene().getRoot() instanceof DialogPane ? (DialogPane) window.getScene().getRoot() : null;
    }

    static Button button(Window window) {
        Node root = window.getScene().getRoot();
        return window != main && root.lookup(".text-area") instanceof TextArea ? (Button) ((BorderPane) root).getBottom() : null;
    }

    static Window window(Predicate<Window> wanted, long patience) throws Exception {
        long until = System.currentTimeMillis() + patience;
        while (System.currentTimeMillis() < until) {
            Window found = fx(() -> Window.getWindows().stream().filter(wanted).findFirst().orElse(null));
            if (found != null)
                return found;
            Thread.sleep(30);
        }
        return null;
    }

    static void picture(Window window, String name) throws Exception {
        BufferedImage shown = fx(() -> SwingFXUtils.fromFXImage(window.getScene().snapshot(null), null));
        ImageIO.write(shown, "png", new File(pictures, name + ".png"));
    }

    static <T> T fx(Callable<T> action) throws Exception {
        FutureTask<T> task = new FutureTask<>(action);
        Platform.runLater(task);
        return task.get();
    }
}
