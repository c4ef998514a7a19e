// Runs wsi-attention on the open image and imports the result. Many images: classify_project.groovy, once for all.
def loader = new GroovyClassLoader(getClass().classLoader)
loader.addClasspath(new File(binding.getVariable('qupath.script.file')).parent)  // save the script before you run it
def wsi = loader.loadClass('WsiAttention')

def settings = wsi.settings([
    results: '',                 // a folder; results of another model need another one
    model: '',                   // a model folder; `demo` is a demonstration: its label means nothing on real tissue
    command: 'wsi-attention',    // its full path where QuPath does not find it
    options: '',                 // such as --mpp 0.25
    masks: '',                   // the folder of export_tissue_mask, if masks are to be used
    geojson: '',
    series: 0,
], args)

wsi.classifyImage(getCurrentImageData(), settings)
