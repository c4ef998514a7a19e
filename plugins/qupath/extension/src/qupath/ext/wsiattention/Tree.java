package qupath.ext.wsiattention;

import java.util.LinkedHashSet;
import java.util.Set;
import java.util.concurrent.TimeUnit;

/** A process with all that it started. */
final class Tree {

    private static final long PAUSE = 50;

    private Tree() {
    }

    /**
     * Ends a process and everything that it or its children started: asks them first, then ends them by force.
     *
     * @param grace milliseconds that they have to end by themselves
     */
    static void end(Process process, long grace) throws InterruptedException {
        Set<ProcessHandle> all = new LinkedHashSet<>();
        gather(process.toHandle(), all);
        for (ProcessHandle one : all)
            one.destroy();
        long until = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(grace);
        while (anyAlive(all) && System.nanoTime() < until)
            Thread.sleep(PAUSE);
        for (ProcessHandle one : Set.copyOf(all))
            gather(one, all); // what was started meanwhile
        for (ProcessHandle one : all)
            one.destroyForcibly();
    }

    private static void gather(ProcessHandle one, Set<ProcessHandle> all) {
        all.add(one);
        one.descendants().forEach(all::add);
    }

    private static boolean anyAlive(Set<ProcessHandle> all) {
        return all.stream().anyMatch(ProcessHandle::isAlive);
    }
}
