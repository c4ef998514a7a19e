package qupath.ext.wsiattention;

import javafx.beans.property.StringProperty;
import qupath.lib.gui.prefs.PathPrefs;

/** The settings that QuPath keeps from one start to the next. */
public final class Preferences {

    private final StringProperty command = kept("command");
    private final StringProperty model = kept("model");
    private final StringProperty results = kept("results");
    private final StringProperty options = kept("options");
    private final StringProperty masks = kept("masks");

    private static StringProperty kept(String name) {
        return PathPrefs.createPersistentPreference("wsi-attention." + name, "");
    }

    public Settings load() {
        return new Settings(command.get(), model.get(), results.get(), options.get(), masks.get());
    }

    public void save(Settings settings) {
        command.set(settings.command());
        model.set(settings.model());
        results.set(settings.results());
        options.set(settings.options());
        masks.set(settings.masks());
    }
}
