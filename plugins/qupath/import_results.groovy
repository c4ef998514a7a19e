// Imports the result of wsi-attention for the open image. For all images of a project: Run > Run for project.
// Without a window: QuPath script -p project.qpproj --save --args results=/path/to/results import_results.groovy
def loader = new GroovyClassLoader(getClass().classLoader)
loader.addClasspath(new File(binding.getVariable('qupath.script.file')).parent)  // save the script before you run it
def wsi = loader.loadClass('WsiAttention')

def settings = wsi.settings([
    results: '',   // the folder that wsi-attention classify wrote
    geojson: '',   // or one file in it, where the slide has another name there
    series: 0,     // the scene of the file; wsi-attention reads the first
], args)

wsi.importResults(getCurrentImageData(), settings)
