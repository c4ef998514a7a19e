package qupath.ext.wsiattention;

import groovy.lang.GroovyClassLoader;
import java.awt.image.BufferedImage;
import java.io.File;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import qupath.lib.images.ImageData;
import qupath.lib.images.servers.ImageServer;
import qupath.lib.projects.Project;

/** What the scripts of wsi-attention do, which lie in this jar: the same code whether a menu or a script calls it. */
public final class Results {

    private final Class<?> scripts;
    private final Class<?> files;
    private final Class<?> frame;

    public Results() throws Problem {
        try (GroovyClassLoader loader = new GroovyClassLoader(Results.class.getClassLoader())) {
            scripts = loader.loadClass("WsiAttention");
            files = loader.loadClass("WsiAttentionFiles");
            frame = loader.loadClass("WsiAttentionFrame");
        } catch (ClassNotFoundException | IOException problem) {
            throw new Problem("the extension's jar is damaged (" + problem.getMessage() + "); install it again");
        }
    }

    /** Imports tiles, regions and the label of an image, in place of an earlier import; gives the number of objects. */
    public int importInto(ImageData<BufferedImage> image, Settings settings) throws Problem {
        return (Integer) call(scripts, "importResults", image, settings.forScripts());
    }

    /** Writes the label into the project's metadata of the image, where the project lists it; gives the label. */
    public String tellProject(Project<BufferedImage> project, ImageData<BufferedImage> image) throws Problem {
        return (String) call(scripts, "tellProject", project, image);
    }

    /** Imports into every image of the project; those that cannot take a result are named on standard output. */
    public int importIntoProject(Project<BufferedImage> project, ImageData<BufferedImage> open, Settings settings)
            throws Problem {
        return ((Number) call(scripts, "importProject", project, open, settings.forScripts())).intValue();
    }

    /** Removes what was imported and not locked since; gives the number of objects. */
    public int removeFrom(ImageData<BufferedImage> image) throws Problem {
        return (Integer) call(scripts, "removeResults", image, Map.of());
    }

    /** The slide of an image, with its tissue mask where the user has exported one. */
    public Map<String, String> slideOf(ImageServer<BufferedImage> server, Settings settings) throws Problem {
        File slide = (File) call(frame, "fileOf", server);
        return Map.of(slide.getPath(), masks(settings).getOrDefault(slide.getPath(), ""));
    }

    /** The slides of a project, likewise. */
    public Map<String, String> slidesOf(Project<BufferedImage> project, Settings settings) throws Problem {
        Map<String, String> masks = masks(settings);
        Map<String, String> found = new LinkedHashMap<>();
        for (Object file : (Iterable<?>) call(scripts, "slidesOf", project)) {
            String path = ((File) file).getPath();
            found.put(path, masks.getOrDefault(path, ""));
        }
        return found;
    }

    @SuppressWarnings("unchecked")
    private Map<String, String> masks(Settings settings) throws Problem {
        if (settings.masks().isBlank())
            return Map.of();
        return (Map<String, String>) call(files, "readMasks", new File(settings.masks(), "slides.csv"));
    }

    private static Object call(Class<?> owner, String name, Object... arguments) throws Problem {
        Method method = Arrays.stream(owner.getMethods())
                .filter(one -> one.getName().equals(name) && takes(one.getParameterTypes(), arguments))
                .findFirst().orElseThrow(() -> new IllegalStateException(owner.getName() + " has no " + name));
        try {
            return method.invoke(null, arguments);
        } catch (InvocationTargetException problem) {
            Throwable cause = problem.getCause();
            if (cause instanceof IllegalArgumentException)
                throw new Problem(cause.getMessage());
            throw new IllegalStateException(cause);
        } catch (IllegalAccessException problem) {
            throw new IllegalStateException(problem);
        }
    }

    private static boolean takes(Class<?>[] types, Object[] arguments) {
        if (types.length != arguments.length)
            return false;
        for (int i = 0; i < types.length; i++)
            if (arguments[i] != null && !types[i].isInstance(arguments[i]))
                return false;
        return true;
    }
}
