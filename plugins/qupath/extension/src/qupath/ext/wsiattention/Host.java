package qupath.ext.wsiattention;

import java.awt.image.BufferedImage;
import javafx.stage.Window;
import qupath.lib.gui.viewer.OverlayOptions;
import qupath.lib.images.ImageData;
import qupath.lib.projects.Project;

/** The program that the menu lies in. */
public interface Host {

    /** The open image; null where there is none. */
    ImageData<BufferedImage> image();

    /** The open project; null where there is none. */
    Project<BufferedImage> project();

    /** How objects are drawn. */
    OverlayOptions overlay();

    /** The window that dialogs belong to; null where there is none. */
    Window window();

    /** Shows the project's list of images anew. */
    void refreshProject();
}
