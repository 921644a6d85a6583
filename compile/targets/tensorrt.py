"""NVIDIA GPUs: TensorRT where it imports and a GPU is there, else TensorRT for RTX.

TensorRT for RTX compiles ahead of time without a GPU, for the compute capabilities that the target's config declares;
one engine holds them all. Running needs a GPU. One build a process: the bytes of a second one differ.
"""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np

PACKAGES = ("tensorrt", "tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings")
OPTIONS = ("compute_capabilities",)
M_MMAP_MAX = -4
"""The builder numbers names by the order of its objects' addresses, and where an allocator puts them hangs on all that
came before: the length of a path is enough. A new thread has an arena of its own, which starts empty; kept from mapping
large blocks elsewhere, it fills the same way each time."""
NO_GPU = ("no NVIDIA GPU on this machine", "carry it to one with `lockstep bundle MODEL TARGET`")


def probe():
    name, api, missing = find()
    if api is None:
        return {"versions": {}, "build": missing, "run": missing}
    return {"versions": {name: api.__version__}, "build": None, "run": None if gpu() else list(NO_GPU)}


def find():
    """The library to use: its name, its module, and why there is none."""
    if gpu():
        try:
            import tensorrt

            tensorrt.Builder  # noqa: B018  # the stub on PyPI imports and has nothing inside
            return "tensorrt", tensorrt, None
        except (ImportError, AttributeError, OSError):
            pass
    try:
        import tensorrt_rtx_bindings

        return "tensorrt_rtx", tensorrt_rtx_bindings, None
    except (ImportError, OSError) as error:
        fix = "install the `[build]` extra on Linux x86-64, or NVIDIA's `tensorrt` on a machine with a GPU"
        return "", None, [f"TensorRT for RTX does not import: {error}", fix]


def build(job):
    """The engine, built where memory looks the same in every folder."""
    name, trt, missing = find()
    if trt is None:
        raise job.Unavailable(*missing)
    ctypes.CDLL(None).mallopt(M_MMAP_MAX, 0)
    with ThreadPoolExecutor(1) as fresh_memory:
        return fresh_memory.submit(compiled, job, name, trt).result()


def compiled(job, name, trt):
    logger = listener(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(job.graph.read_bytes()):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        said = "; ".join(f"{e.node_operator()} at node `{e.node_name()}`: {e.desc()}" for e in errors)
        raise RuntimeError(f"TensorRT cannot compile it: {said}")
    config = builder.create_builder_config()
    config.add_optimization_profile(profile(builder, job))
    capabilities = declare(trt, config, name, job.options.get("compute_capabilities", []))
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError(f"TensorRT gave no engine: {'; '.join(logger.errors)}")
    (job.artifact / "model.engine").write_bytes(bytes(memoryview(engine)))
    return {
        "entry": "model.engine",
        "runtime": {"name": name, "version": trt.__version__},
        "layers": [],
        "effective": {"precision": job.precision, "compute_capabilities": capabilities, "strongly_typed": True},
    }


def listener(trt):
    """A logger that keeps the errors, for the message."""

    class Listener(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.errors = []

        def log(self, severity, text):
            if severity <= trt.ILogger.Severity.WARNING:
                print(f"[{severity.name}] {text}", flush=True)
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(text)

    return Listener()


def profile(builder, job):
    """One optimization profile from the axes' bounds."""
    made = builder.create_optimization_profile()
    for tensor in job.signature["inputs"]:
        made.set_shape(tensor["name"], *(job.shape(tensor, bound) for bound in ("least", "typical", "most")))
    return made


def declare(trt, config, name, capabilities):
    """Compile ahead of time for these compute capabilities; NVIDIA's own TensorRT builds for the GPU at hand."""
    if name != "tensorrt_rtx":
        return ["this machine's"]
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), index)
    return list(capabilities)


def load(job, artifact):
    if not gpu():
        raise job.Unavailable(*NO_GPU)
    name, trt, missing = find()
    if trt is None:
        raise job.Unavailable(*missing)
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    engine = runtime.deserialize_cuda_engine((artifact / "model.engine").read_bytes())
    if engine is None:
        raise RuntimeError("this GPU or this version of TensorRT cannot load the engine; the log says why")
    context = engine.create_execution_context()
    cuda = Cuda()

    def infer(feeds):
        return execute(trt, engine, context, cuda, feeds)

    infer.keep = runtime
    effective = {"precision": job.precision, "versions": {name: trt.__version__}, "device": cuda.device_name()}
    return infer, effective


def execute(trt, engine, context, cuda, feeds):
    """One inference: inputs up, enqueue, outputs down."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    outputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT]
    for name in names:
        if name not in outputs:
            array = np.asarray(feeds[name], order="C")
            context.set_input_shape(name, array.shape)
            context.set_tensor_address(name, cuda.upload(name, array))
    found = {n: np.empty(tuple(context.get_tensor_shape(n)), trt.nptype(engine.get_tensor_dtype(n))) for n in outputs}
    for name, array in found.items():
        context.set_tensor_address(name, cuda.reserve(name, array.nbytes))
    if not context.execute_async_v3(0):
        raise RuntimeError("TensorRT could not enqueue the inference; the log says why")
    for name, array in found.items():
        cuda.download(name, array)
    return found


def driver():
    """The CUDA driver's library, initialized, or None where there is none."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return library if library.cuInit(0) == 0 else None


def gpu():
    """Whether the CUDA driver sees at least one device."""
    library = driver()
    count = ctypes.c_int(0)
    return bool(library and library.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value)


class Cuda:
    """Device memory through the driver alone, one buffer a tensor, grown when needed."""

    def __init__(self):
        self.library = driver()
        self.device = ctypes.c_int(0)
        context = ctypes.c_void_p()
        self.check(self.library.cuDeviceGet(ctypes.byref(self.device), 0))
        self.check(self.library.cuDevicePrimaryCtxRetain(ctypes.byref(context), self.device))
        self.check(self.library.cuCtxSetCurrent(context))
        self.buffers = {}

    def check(self, status):
        if status:
            raise RuntimeError(f"the CUDA driver answered with error {status}")

    def device_name(self):
        name = ctypes.create_string_buffer(128)
        self.check(self.library.cuDeviceGetName(name, 128, self.device))
        return name.value.decode()

    def reserve(self, name, size_bytes):
        held = self.buffers.get(name)
        if held is None or held[1] < size_bytes:
            if held is not None:
                self.check(self.library.cuMemFree_v2(held[0]))
            pointer = ctypes.c_uint64()
            self.check(self.library.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(max(size_bytes, 1))))
            held = self.buffers[name] = (pointer, size_bytes)
        return held[0].value

    def upload(self, name, array):
        address = self.reserve(name, array.nbytes)
        source = ctypes.c_void_p(array.ctypes.data)
        self.check(self.library.cuMemcpyHtoD_v2(ctypes.c_uint64(address), source, ctypes.c_size_t(array.nbytes)))
        return address

    def download(self, name, array):
        self.check(self.library.cuCtxSynchronize())
        target = ctypes.c_void_p(array.ctypes.data)
        self.check(self.library.cuMemcpyDtoH_v2(target, self.buffers[name][0], ctypes.c_size_t(array.nbytes)))
