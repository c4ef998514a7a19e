package qupath.ext.wsiattention;

import java.util.List;
import java.util.Optional;
import javafx.application.Platform;
import javafx.scene.control.Alert;
import javafx.scene.control.MenuItem;
import javafx.scene.control.SeparatorMenuItem;
import javafx.scene.input.Clipboard;
import javafx.scene.input.ClipboardContent;

/** The items of the menu Extensions &gt; wsi-attention. */
public final class WsiAttentionMenu {

    /** Something that the menu does outside the window's thread; gives a sentence on what came out. */
    @FunctionalInterface
    private interface Work {
        String run(Settings settings, Progress progress) throws Problem, InterruptedException;
    }

    private final Host host;
    private final Actions actions;
    private final Preferences preferences;
    private boolean busy;

    public WsiAttentionMenu(Host host, Preferences preferences) throws Problem {
        this.host = host;
        this.actions = new Actions(host);
        this.preferences = preferences;
    }

    /** The items, in order. */
    public List<MenuItem> items() {
        return List.of(
                item("Classify image…", () -> ask("Classify image", actions::classifyImage)),
                item("Classify project…", () -> ask("Classify project", actions::classifyProject)),
                new SeparatorMenuItem(),
                item("Import results…", () -> ask("Import results", (settings, progress) -> actions.importResults(settings))),
                item("Remove results", () -> start("Remove results", preferences.load(),
                        (settings, progress) -> actions.remove(settings))),
                new SeparatorMenuItem(),
                item("Show attention map", () -> told(actions::showMap)),
                item("Hide attention map", () -> AttentionMap.hide(host.overlay())),
                item("Copy as script", () -> told(this::copyScript)));
    }

    private static MenuItem item(String name, Runnable action) {
        MenuItem item = new MenuItem(name);
        item.setOnAction(event -> action.run());
        return item;
    }

    private void ask(String title, Work work) {
        Optional<Settings> chosen = new SettingsDialog(host.window(), preferences.load()).ask(title);
        chosen.ifPresent(settings -> {
            preferences.save(settings);
            start(title, settings, work);
        });
    }

    private void start(String title, Settings settings, Work work) {
        if (busy) {
            tell("wsi-attention is at work; wait until it has ended, or cancel it");
            return;
        }
        busy = true;
        ProgressWindow window = new ProgressWindow(host.window(), "wsi-attention: " + title, this::cancel);
        window.show();
        Thread thread = new Thread(() -> window.end(outcome(settings, work, window)), "wsi-attention");
        thread.setDaemon(true);
        thread.start();
    }

    private String outcome(Settings settings, Work work, Progress progress) {
        try {
            String said = work.run(settings, progress);
            Platform.runLater(host::refreshProject);
            return said;
        } catch (Problem problem) {
            return problem.getMessage();
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
            return "interrupted";
        } catch (RuntimeException unexpected) {
            return "unexpected: " + unexpected;
        } finally {
            Platform.runLater(() -> busy = false);
        }
    }

    private void cancel() {
        Thread thread = new Thread(() -> {
            try {
                actions.cancel();
            } catch (InterruptedException stopped) {
                Thread.currentThread().interrupt();
            }
        }, "wsi-attention: cancel");
        thread.setDaemon(true);
        thread.start();
    }

    private void copyScript() throws Problem {
        ClipboardContent content = new ClipboardContent();
        content.putString(actions.script());
        Clipboard.getSystemClipboard().setContent(content);
    }

    /** Something short that may have a problem. */
    @FunctionalInterface
    private interface Step {
        void run() throws Problem;
    }

    private void told(Step step) {
        try {
            step.run();
        } catch (Problem problem) {
            tell(problem.getMessage());
        }
    }

    private void tell(String text) {
        Alert alert = new Alert(Alert.AlertType.INFORMATION, text);
        alert.initOwner(host.window());
        alert.setTitle("wsi-attention");
        alert.setHeaderText(null);
        alert.show();
    }
}
