package qupath.ext.wsiattention;

import java.awt.image.BufferedImage;
import javafx.stage.Window;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import qupath.lib.common.Version;
import qupath.lib.gui.QuPathGUI;
import qupath.lib.gui.extensions.QuPathExtension;
import qupath.lib.gui.viewer.OverlayOptions;
import qupath.lib.images.ImageData;
import qupath.lib.projects.Project;

/** Puts wsi-attention into QuPath's menu Extensions. */
public class WsiAttentionExtension implements QuPathExtension {

    /** The version of QuPath that the extension is compiled against. */
    static final String QUPATH = "0.5.1";

    private static final Logger logger = LoggerFactory.getLogger(WsiAttentionExtension.class);

    private boolean installed;

    @Override
    public void installExtension(QuPathGUI qupath) {
        if (installed)
            return;
        installed = true;
        try {
            WsiAttentionMenu menu = new WsiAttentionMenu(new QuPathWindow(qupath), new Preferences());
            qupath.getMenu("Extensions>wsi-attention", true).getItems().addAll(menu.items());
        } catch (Problem problem) {
            logger.error("wsi-attention: {}", problem.getMessage());
        }
    }

    @Override
    public String getName() {
        return "wsi-attention";
    }

    @Override
    public String getDescription() {
        return "Classifies slides with wsi-attention, in a process of its own, and shows the regions that labels rest on. "
                + "Research use only.";
    }

    @Override
    public Version getQuPathVersion() {
        return Version.parse(QUPATH);
    }

    /** QuPath's window as the menu sees it. */
    private static final class QuPathWindow implements Host {

        private final QuPathGUI qupath;

        QuPathWindow(QuPathGUI qupath) {
            this.qupath = qupath;
        }

        @Override
        public ImageData<BufferedImage> image() {
            return qupath.getImageData();
        }

        @Override
        public Project<BufferedImage> project() {
            return qupath.getProject();
        }

        @Override
        public OverlayOptions overlay() {
            return qupath.getOverlayOptions();
        }

        @Override
        public Window window() {
            return qupath.getStage();
        }

        @Override
        public void refreshProject() {
            qupath.refreshProject();
        }
    }
}
