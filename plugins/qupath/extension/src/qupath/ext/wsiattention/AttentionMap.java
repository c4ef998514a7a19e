package qupath.ext.wsiattention;

import java.awt.image.BufferedImage;
import java.util.Collection;
import java.util.Map;
import qupath.lib.color.ColorMaps;
import qupath.lib.color.ColorMaps.ColorMap;
import qupath.lib.gui.tools.MeasurementMapper;
import qupath.lib.gui.viewer.OverlayOptions;
import qupath.lib.images.ImageData;
import qupath.lib.objects.PathObject;

/** QuPath's measurement map over the tiles that were imported, coloured by the percentile of attention. */
public final class AttentionMap {

    /** The measurement: raw attention is so skewed that its map looks empty. */
    public static final String MEASUREMENT = "Attention percentile";

    private AttentionMap() {
    }

    /**
     * Shows the map.
     *
     * @throws Problem there are no tiles of wsi-attention in the image
     */
    public static void show(OverlayOptions options, ImageData<BufferedImage> image) throws Problem {
        Collection<PathObject> tiles = tilesOf(image);
        if (tiles.isEmpty())
            throw new Problem("no tile in this image has the measurement " + MEASUREMENT
                    + ": classify it, or import results, first");
        Map<String, ColorMap> maps = ColorMaps.getColorMaps();
        ColorMap colours = maps.getOrDefault("Magma", ColorMaps.getDefaultColorMap());
        options.setMeasurementMapper(new MeasurementMapper(colours, MEASUREMENT, tiles));
        options.setShowDetections(true);
        options.setFillDetections(true);
    }

    /** Shows the objects in their own colours again. */
    public static void hide(OverlayOptions options) {
        options.resetMeasurementMapper();
    }

    static Collection<PathObject> tilesOf(ImageData<BufferedImage> image) {
        return image.getHierarchy().getTileObjects().stream()
                .filter(one -> one.getMeasurementList().containsKey(MEASUREMENT)).toList();
    }
}
