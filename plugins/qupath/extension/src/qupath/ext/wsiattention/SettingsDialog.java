package qupath.ext.wsiattention;

import java.io.File;
import java.util.Optional;
import javafx.scene.Node;
import javafx.scene.control.Button;
import javafx.scene.control.ButtonType;
import javafx.scene.control.Dialog;
import javafx.scene.control.Label;
import javafx.scene.control.TextField;
import javafx.scene.layout.GridPane;
import javafx.scene.layout.Priority;
import javafx.stage.DirectoryChooser;
import javafx.stage.FileChooser;
import javafx.stage.Window;

/** Asks for the settings; what was typed is kept for the next time. */
final class SettingsDialog {

    private final GridPane grid = new GridPane();
    private final TextField command = new TextField();
    private final TextField model = new TextField();
    private final TextField results = new TextField();
    private final TextField options = new TextField();
    private final TextField masks = new TextField();
    private final Window window;

    SettingsDialog(Window window, Settings now) {
        this.window = window;
        grid.setHgap(8);
        grid.setVgap(6);
        row(0, "Command", command, now.command(), "empty: looked for on PATH and in ~/.local/bin", fileButton(command));
        row(1, "Model", model, now.model(), "a model folder, or demo (demonstration only)", folderButton(model));
        row(2, "Results", results, now.results(), "a folder; made where there is none", folderButton(results));
        row(3, "Masks", masks, now.masks(), "a folder with exported tissue masks; may be empty", folderButton(masks));
        row(4, "Options", options, now.options(), "such as: -n 2 --mpp 0.25", new Label(""));
    }

    private void row(int number, String name, TextField field, String value, String hint, Node beside) {
        field.setText(value);
        field.setPromptText(hint);
        field.setId("wsi-attention-" + name.toLowerCase());
        field.setPrefColumnCount(36);
        Label label = new Label(name);
        label.setLabelFor(field);
        GridPane.setHgrow(field, Priority.ALWAYS);
        grid.addRow(number, label, field, beside);
    }

    private Button folderButton(TextField field) {
        Button button = new Button("Browse…");
        button.setOnAction(event -> {
            DirectoryChooser chooser = new DirectoryChooser();
            File now = new File(field.getText());
            if (now.isDirectory())
                chooser.setInitialDirectory(now);
            take(field, chooser.showDialog(window));
        });
        return button;
    }

    private Button fileButton(TextField field) {
        Button button = new Button("Browse…");
        button.setOnAction(event -> take(field, new FileChooser().showOpenDialog(window)));
        return button;
    }

    private static void take(TextField field, File chosen) {
        if (chosen != null)
            field.setText(chosen.getPath());
    }

    /** The form, which a dialog shows. */
    GridPane form() {
        return grid;
    }

    /** What stands in the form now. */
    Settings settings() {
        return new Settings(command.getText().strip(), model.getText().strip(), results.getText().strip(),
                options.getText().strip(), masks.getText().strip());
    }

    /** Shows the form and waits; empty where the user closed it. */
    Optional<Settings> ask(String title) {
        Dialog<ButtonType> dialog = new Dialog<>();
        dialog.initOwner(window);
        dialog.setTitle(title);
        dialog.setHeaderText("wsi-attention runs in a process of its own. Research use only.");
        dialog.getDialogPane().setContent(grid);
        dialog.getDialogPane().getButtonTypes().addAll(ButtonType.OK, ButtonType.CANCEL);
        dialog.setResizable(true);
        return dialog.showAndWait().filter(ButtonType.OK::equals).map(chosen -> settings());
    }
}
