// The Python module of one variant. Each variant is a shared object of its own, compiled with its own flags from
// one translation unit: nothing is shared that a linker could take from the wrong one.
//
// A variant's source defines KERNEL_NAME and includes this file.
#pragma once

#include "arguments.h"  // first, since Python.h wants to be

#include "cpu.h"
#include "forward.h"
#include "peak.h"

namespace kernel {
namespace {

constexpr const char* NETWORK = "apogee_batch.kernel.Network";
constexpr const char* WORKSPACE = "apogee_batch.kernel.Workspace";

struct LoadedNetwork {
  Network network;
  bool is_fast;
};

struct OwnedWorkspace {
  Workspace memory;
  bool is_fast;
  bool is_in_use = false;  // read and written with the GIL held
};

PyObject* runnable_variants(PyObject*, PyObject*) {
  Variant variants[N_VARIANTS];
  find_runnable_variants(variants);
  PyObject* names = PyList_New(0);
  for (const Variant& variant : variants) {
    if (!names || !variant.can_run) continue;
    PyObject* name = PyUnicode_FromString(variant.name);
    if (!name || PyList_Append(names, name) != 0) Py_CLEAR(names);
    Py_XDECREF(name);
  }
  return names;
}

PyObject* load_network(PyObject*, PyObject* arguments) {
  PyObject* parameters;
  int is_fast;
  if (!PyArg_ParseTuple(arguments, "O!p", &PyTuple_Type, &parameters, &is_fast)) return nullptr;
  if (PyTuple_Size(parameters) != N_PARAMETERS)
    return PyErr_Format(PyExc_ValueError, "%d parameters are needed, not %zd", N_PARAMETERS, PyTuple_Size(parameters));
  View views[N_PARAMETERS];
  const float* data[N_PARAMETERS];
  for (int i = 0; i < N_PARAMETERS; i++) {
    char name[32];
    PyOS_snprintf(name, sizeof name, "parameter %d", i);
    if (!open_floats(views[i], PyTuple_GetItem(parameters, i), name, Py_ssize_t(parameter_size(i)))) return nullptr;
    data[i] = views[i].data<float>();
  }
  try {
    return wrap(new LoadedNetwork{Network(data, is_fast), bool(is_fast)}, NETWORK);
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyObject* new_workspace(PyObject*, PyObject* arguments) {
  int is_fast;
  if (!PyArg_ParseTuple(arguments, "p", &is_fast)) return nullptr;
  try {
    return wrap(new OwnedWorkspace{Workspace(is_fast), bool(is_fast)}, WORKSPACE);
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

// Checked arguments of one call of `predict`.
struct Prediction {
  LoadedNetwork* network;
  OwnedWorkspace* workspace;
  View flux, err, keys, scale, labels;
  Transform transform;
  int n_realizations;
  Py_ssize_t n_stars;

  bool parse(PyObject* arguments) {
    PyObject *loaded, *owned, *flux_in, *err_in, *keys_in, *scale_in, *labels_out;
    int is_contrast;
    if (!PyArg_ParseTuple(arguments, "OO(pff)iOOOOO", &loaded, &owned, &is_contrast, &transform.clip, &transform.gain,
                          &n_realizations, &flux_in, &err_in, &keys_in, &scale_in, &labels_out))
      return false;
    transform.is_contrast = is_contrast;
    network = unwrap<LoadedNetwork>(loaded, NETWORK);
    workspace = network ? unwrap<OwnedWorkspace>(owned, WORKSPACE) : nullptr;
    if (!workspace || !open_words(keys, keys_in, "keys", -1)) return false;
    n_stars = keys.size() / 2;
    if (n_realizations < 1 || n_realizations > 1000000 || n_stars > 1000000 || keys.size() % 2) {
      PyErr_SetString(PyExc_ValueError, "1 to 1000000 realizations, and two words of key for each star, are needed");
      return false;
    }
    if (network->is_fast != workspace->is_fast || workspace->is_in_use) {
      PyErr_SetString(PyExc_RuntimeError, "the workspace is of another precision, or a call uses it at this moment");
      return false;
    }
    return open_floats(flux, flux_in, "flux", n_stars * N_PIXELS) &&
           open_floats(err, err_in, "err", n_stars * N_PIXELS) && open_floats(scale, scale_in, "scale", n_stars) &&
           open_floats(labels, labels_out, "labels", n_stars * (1 + n_realizations) * N_LABELS, true);
  }

  void run(Star* stars) const {
    const uint64_t* key = keys.data<uint64_t>();
    for (Py_ssize_t i = 0; i < n_stars; i++)
      stars[i] = Star{flux.data<float>() + i * N_PIXELS, err.data<float>() + i * N_PIXELS, scale.data<float>()[i],
                      key[2 * i], key[2 * i + 1]};
    const Call call{stars, int(n_stars), n_realizations, transform, labels.data<float>()};
#if KERNEL_HAS_BF16
    if (network->is_fast) return predict_fast(network->network, workspace->memory, call);
#endif
    predict_exact(network->network, workspace->memory, call);
  }
};

PyObject* predict(PyObject*, PyObject* arguments) {
  Prediction prediction;
  if (!prediction.parse(arguments)) return nullptr;
  Star* stars = new (std::nothrow) Star[size_t(prediction.n_stars)];
  if (!stars) return PyErr_NoMemory();
  prediction.workspace->is_in_use = true;
  Py_BEGIN_ALLOW_THREADS  // nothing below throws: all memory is there
  prediction.run(stars);
  Py_END_ALLOW_THREADS
  prediction.workspace->is_in_use = false;
  delete[] stars;
  Py_RETURN_NONE;
}

PyObject* take_parts(PyObject*, PyObject* capsule) {
  OwnedWorkspace* workspace = unwrap<OwnedWorkspace>(capsule, WORKSPACE);
  if (!workspace) return nullptr;
  const Parts parts = workspace->memory.parts;
  workspace->memory.parts = Parts{};
  return Py_BuildValue("{sdsdsdsd}", "noise", parts.noise, "convolutions", parts.convolutions, "dense", parts.dense,
                       "anchors", parts.anchors);
}

PyObject* draw_noise(PyObject*, PyObject* arguments) {
  unsigned long long seed, gamma;
  PyObject *normals_out, *bits_out;
  View normals, bits;
  if (!PyArg_ParseTuple(arguments, "KKOO", &seed, &gamma, &normals_out, &bits_out) ||
      !open_words(bits, bits_out, "bits", -1, true))
    return nullptr;
  const Py_ssize_t n_rows = bits.size() / N_PAIRS;
  if (bits.size() != n_rows * N_PAIRS) return PyErr_Format(PyExc_ValueError, "bits: whole rows are needed");
  if (!open_floats(normals, normals_out, "normals", n_rows * 2 * N_PAIRS, true)) return nullptr;
  for (Py_ssize_t first = 0; first < n_rows; first += LANES) {
    NoiseLanes lanes{};
    for (int lane = 0; lane < LANES; lane++) lanes.set_lane(lane, seed, gamma, uint64_t(first + lane), N_PAIRS);
    NoiseLanes twin = lanes;
    for (int pair = 0; pair < N_PAIRS; pair++) {
      Lanes even, odd;
      BitLanes high, low;
      lanes.next(even, odd);
      twin.next_bits(high, low);
      for (Py_ssize_t row = first; row < n_rows && row < first + LANES; row++) {
        const int lane = int(row - first);
        normals.data<float>()[(row * N_PAIRS + pair) * 2] = even[lane];
        normals.data<float>()[(row * N_PAIRS + pair) * 2 + 1] = odd[lane];
        bits.data<uint64_t>()[row * N_PAIRS + pair] = uint64_t(high[lane]) << 32 | low[lane];
      }
    }
  }
  Py_RETURN_NONE;
}

PyObject* measure_peaks(PyObject*, PyObject* seconds_each) {
  const double seconds = PyFloat_AsDouble(seconds_each);
  if (PyErr_Occurred()) return nullptr;
  double fma_peak, bf16_peak = 0;
  Py_BEGIN_ALLOW_THREADS
  fma_peak = measure_fma_peak(seconds);
#if KERNEL_HAS_BF16
  bf16_peak = measure_bf16_peak(seconds);
#endif
  Py_END_ALLOW_THREADS
  return Py_BuildValue("{sdsd}", "fma", fma_peak, "bf16", bf16_peak);
}

PyMethodDef METHODS[] = {
    {"runnable_variants", runnable_variants, METH_NOARGS, "Names of the variants that this CPU can run, best first."},
    {"load_network", load_network, METH_VARARGS, "(parameters, is_fast) -> network: pack the weights."},
    {"new_workspace", new_workspace, METH_VARARGS, "(is_fast) -> workspace: memory of one thread."},
    {"predict", predict, METH_VARARGS,
     "(network, workspace, (is_contrast, clip, gain), n_realizations, flux, err, keys, scale, labels)"},
    {"take_parts", take_parts, METH_O, "(workspace) -> seconds by part since the last time."},
    {"draw_noise", draw_noise, METH_VARARGS, "(seed, gamma, normals, bits): for tests."},
    {"measure_peaks", measure_peaks, METH_O, "(seconds) -> operations per second at most."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "kernel", nullptr, -1, METHODS, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace kernel

#define KERNEL_JOIN(a, b) a##b
#define KERNEL_INIT(name) KERNEL_JOIN(PyInit__, name)

PyMODINIT_FUNC KERNEL_INIT(KERNEL_NAME)() {
  PyObject* module = PyModule_Create(&kernel::MODULE);
  if (!module) return nullptr;
  const bool failed = PyModule_AddIntConstant(module, "N_LANES", kernel::LANES) != 0 ||
                      PyModule_AddIntConstant(module, "HAS_BF16", KERNEL_HAS_BF16) != 0 ||
                      PyModule_AddStringConstant(module, "REVISION", KERNEL_REVISION) != 0;  // given by setup.py
  if (failed) Py_CLEAR(module);
  return module;
}
