package qupath.ext.wsiattention;

/** Is told how a classification goes on; called from another thread than that of the window. */
public interface Progress {

    /** A line that the command wrote, or a stage. */
    void line(String text);

    /** How many slides are done, of how many. */
    void slides(int done, int total);
}
