package qupath.ext.wsiattention;

import javafx.application.Platform;
import javafx.geometry.Insets;
import javafx.scene.Scene;
import javafx.scene.control.Button;
import javafx.scene.control.Label;
import javafx.scene.control.ProgressBar;
import javafx.scene.control.TextArea;
import javafx.scene.layout.BorderPane;
import javafx.scene.layout.VBox;
import javafx.stage.Stage;
import javafx.stage.Window;

/** Shows how a classification goes on, and ends it. Its methods may be called from any thread. */
final class ProgressWindow implements Progress {

    private static final int LINES = 2000;

    private final Stage stage = new Stage();
    private final ProgressBar bar = new ProgressBar(ProgressBar.INDETERMINATE_PROGRESS);
    private final Label status = new Label("starting");
    private final TextArea lines = new TextArea();
    private final Button button = new Button("Cancel");
    private boolean ended;

    /**
     * @param window the window that it belongs to
     * @param title above it
     * @param cancel is called when the user wants to end it; in the window's thread, so it must not wait
     */
    ProgressWindow(Window window, String title, Runnable cancel) {
        bar.setMaxWidth(Double.MAX_VALUE);
        lines.setEditable(false);
        lines.setPrefRowCount(12);
        lines.setPrefColumnCount(70);
        button.setOnAction(event -> endOrClose(cancel));
        VBox top = new VBox(6, status, bar);
        BorderPane pane = new BorderPane(lines, top, null, button, null);
        pane.setPadding(new Insets(10));
        BorderPane.setMargin(lines, new Insets(8, 0, 8, 0));
        stage.initOwner(window);
        stage.setTitle(title);
        stage.setScene(new Scene(pane));
        stage.setOnCloseRequest(event -> {
            if (!ended) {
                event.consume();
                endOrClose(cancel);
            }
        });
    }

    private void endOrClose(Runnable cancel) {
        if (ended) {
            stage.close();
            return;
        }
        button.setDisable(true);
        status.setText("cancelling: the processes are ended");
        cancel.run();
    }

    void show() {
        stage.show();
    }

    /** The window itself. */
    Stage stage() {
        return stage;
    }

    @Override
    public void line(String text) {
        Platform.runLater(() -> {
            if (lines.getParagraphs().size() > LINES)
                lines.clear();
            lines.appendText(text + "\n");
            if (!button.isDisabled() && !ended)
                status.setText(text.replaceFirst("^wsi-attention: ", ""));
        });
    }

    @Override
    public void slides(int done, int total) {
        Platform.runLater(() -> bar.setProgress(total == 0 ? 0 : (double) done / total));
    }

    /** Shows how it ended; the button closes the window from now on. */
    void end(String outcome) {
        Platform.runLater(() -> {
            ended = true;
            bar.setProgress(1);
            status.setText(outcome);
            lines.appendText(outcome + "\n");
            button.setText("Close");
            button.setDisable(false);
        });
    }
}
