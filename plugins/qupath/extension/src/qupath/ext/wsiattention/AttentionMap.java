package qupath.ext.wsiattention;

import java.awt.image.BufferedImage;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import qupath.lib.color.ColorMaps;
import qupath.lib.color.ColorMaps.ColorMap;
import qupath.lib.gui.tools.MeasurementMapper;
import qupath.lib.gui.viewer.OverlayOptions;
import qupath.lib.images.ImageData;
import qupath.lib.objects.PathObject;

/** QuPath's measurement map over the tiles that were imported. */
public final class AttentionMap {

    /**
     * The measurements that can be shown, the best first: raw attention is so skewed that its map looks empty, and methods
     * without a map of attention have weights alone.
     */
    public static final List<String> MEASUREMENTS = List.of("Attention percentile", "Weight");

    private AttentionMap() {
    }

    /**
     * Shows the map.
     *
     * @throws Problem there are no tiles of wsi-attention in the image
     */
    public static void show(OverlayOptions options, ImageData<BufferedImage> image) throws Problem {
        String shown = MEASUREMENTS.stream().filter(name -> !tilesWith(image, name).isEmpty()).findFirst()
                .orElseThrow(() -> new Problem("no tile in this image has the measurement "
                        + String.join(" or ", MEASUREMENTS) + ": classify it, or import results, first"));
        Map<String, ColorMap> maps = ColorMaps.getColorMaps();
        ColorMap colours = maps.getOrDefault("Magma", ColorMaps.getDefaultColorMap());
        options.setMeasurementMapper(new MeasurementMapper(colours, shown, tilesWith(image, shown)));
        options.setShowDetections(true);
        options.setFillDetections(true);
    }

    /** Shows the objects in their own colours again. */
    public static void hide(OverlayOptions options) {
        options.resetMeasurementMapper();
    }

    private static Collection<PathObject> tilesWith(ImageData<BufferedImage> image, String measurement) {
        return image.getHierarchy().getTileObjects().stream()
                .filter(one -> one.getMeasurementList().containsKey(measurement)).toList();
    }
}
