package qupath.ext.wsiattention;

/** A problem that the user can do something about; its message is one sentence that says what. */
public class Problem extends Exception {

    private static final long serialVersionUID = 1L;

    public Problem(String message) {
        super(message);
    }
}
