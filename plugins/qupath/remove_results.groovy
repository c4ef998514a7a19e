// Removes what import_results put into the open image, and nothing else; what you locked stays.
def loader = new GroovyClassLoader(getClass().classLoader)
loader.addClasspath(new File(binding.getVariable('qupath.script.file')).parent)  // save the script before you run it
def wsi = loader.loadClass('WsiAttention')

def settings = wsi.settings([
    results: '',   // set it to remove objects that were dragged in by hand, too
    geojson: '',
], args)

println "wsi-attention: ${wsi.removeResults(getCurrentImageData(), settings)} objects removed"
