"""ONNX Runtime on the CPU. The artifact is the graph itself; the runtime optimizes it when it loads."""

import shutil

PACKAGES = ("onnxruntime",)


def probe():
    import onnxruntime

    return {"versions": {"onnxruntime": onnxruntime.__version__}, "build": None, "run": None}


def build(job):
    """Copy the graph, load it once, and read off what the runtime makes of it."""
    shutil.copy(job.graph, job.artifact / "model.onnx")
    optimized = job.folder / "optimized.onnx"
    session = open_session(job, job.artifact, optimized)
    return {
        "entry": "model.onnx",
        "runtime": {"name": "onnxruntime", "version": version()},
        "layers": compiled_layers(optimized),
        "effective": effective(session, job),
    }


def load(job, artifact):
    session = open_session(job, artifact)
    names = [output.name for output in session.get_outputs()]
    wanted = {i.name for i in session.get_inputs()}

    def infer(feeds):
        return dict(zip(names, session.run(names, {k: v for k, v in feeds.items() if k in wanted}), strict=True))

    return infer, effective(session, job)


def open_session(job, artifact, optimized=None):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = job.options.get("threads", 1)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(str(artifact / "model.onnx"), options, providers=["CPUExecutionProvider"])


def effective(session, job):
    return {
        "providers": session.get_providers(),
        "precision": job.precision,
        "threads": job.options.get("threads", 1),
        "versions": probe()["versions"],
    }


def version():
    return probe()["versions"]["onnxruntime"]


def compiled_layers(optimized):
    return []
