// Writes regions of the open image as a tissue mask: classification then looks there and nowhere else.
// Selected annotations, or those of `classes`, or all that were not imported.
def loader = new GroovyClassLoader(getClass().classLoader)
loader.addClasspath(new File(binding.getVariable('qupath.script.file')).parent)  // save the script before you run it
def wsi = loader.loadClass('WsiAttention')

def settings = wsi.settings([
    masks: '',     // a folder; its slides.csv lists them for wsi-attention classify --slides-csv
    classes: '',   // such as Tissue,Tumor
    series: 0,
], args)

wsi.exportMask(getCurrentImageData(), settings)
