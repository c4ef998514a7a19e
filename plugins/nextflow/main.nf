// Classifies every slide of a folder, a task a slide:
//   nextflow run plugins/nextflow --slides 'slides/*.svs' --model model -process.container wsi-attention -with-docker
include { CLASSIFY } from './modules/wsi-attention/classify/main'

params.slides = 'sample_slides/*.svs'
params.model = null

workflow {
    if (!params.model) {
        error "no model was given; name the folder that wsi-attention train wrote: --model FOLDER"
    }
    slides = channel.fromPath(params.slides, checkIfExists: true).map { slide -> [[id: slide.simpleName], slide] }
    CLASSIFY(slides, file(params.model, checkIfExists: true))
    CLASSIFY.out.predictions.map { _meta, table -> table }.collectFile(name: 'predictions.csv', keepHeader: true, storeDir: '.')
}
