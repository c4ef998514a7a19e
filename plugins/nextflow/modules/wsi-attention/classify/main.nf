process CLASSIFY {
    tag "${meta.id}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "${task.ext.container ?: 'wsi-attention'}"

    input:
    tuple val(meta), path(slides, stageAs: 'slides/*')
    path model, stageAs: 'model'

    output:
    tuple val(meta), path("${prefix}/predictions.csv"), emit: predictions
    tuple val(meta), path("${prefix}/geojson/*.geojson"), emit: geojson, optional: true
    tuple val(meta), path("${prefix}/tiles/*.csv"), emit: tiles, optional: true
    tuple val(meta), path("${prefix}/heatmaps/*.jpg"), emit: heatmaps, optional: true
    tuple val(meta), path("${prefix}/report.html"), emit: report, optional: true
    tuple val(meta), path("${prefix}"), emit: results
    tuple val("${task.process}"), val('wsi-attention'), eval('wsi-attention --version'), topic: versions, emit: versions_wsiattention

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    export OMP_NUM_THREADS=1

    wsi-attention \\
        classify \\
        --input slides \\
        --output ${prefix} \\
        --model ${model} \\
        --workers ${task.cpus} \\
        ${args}
    """

    stub:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    echo ${args}
    mkdir -p ${prefix}/geojson ${prefix}/tiles ${prefix}/heatmaps
    touch ${prefix}/predictions.csv ${prefix}/report.html
    touch ${prefix}/geojson/slide.geojson ${prefix}/tiles/slide.csv ${prefix}/heatmaps/slide.jpg
    """
}
