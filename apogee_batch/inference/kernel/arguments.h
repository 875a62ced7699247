// What Python hands over, checked before anything reads it.
#pragma once

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstring>

namespace kernel {
namespace {

// A borrowed C-contiguous array. Where it is not what it should be, `is_good` is false and a Python error is set.
class View {
 public:
  View() = default;
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  ~View() {
    if (view_.obj) PyBuffer_Release(&view_);
  }

  // `formats`: the type codes of the struct module that will do. `count`: number of values, -1 for any.
  bool open(PyObject* object, const char* name, const char* formats, size_t item_size, Py_ssize_t count,
            bool is_written = false) {
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (is_written ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object, &view_, flags) != 0) {
      view_.obj = nullptr;
      return false;
    }
    const char* format = view_.format;
    const bool is_right_type = format && std::strlen(format) == 1 && std::strchr(formats, format[0]) &&
                               size_t(view_.itemsize) == item_size;
    if (!is_right_type) {
      PyErr_Format(PyExc_TypeError, "%s: values of type %s and %zu bytes are needed", name, formats, item_size);
      return false;
    }
    if (count >= 0 && view_.len != count * Py_ssize_t(item_size)) {
      PyErr_Format(PyExc_ValueError, "%s: %zd values are needed, not %zd", name, count, size());
      return false;
    }
    return true;
  }

  Py_ssize_t size() const { return view_.len / view_.itemsize; }
  template <class T>
  T* data() const {
    return static_cast<T*>(view_.buf);
  }

 private:
  Py_buffer view_ = {};
};

inline bool open_floats(View& view, PyObject* object, const char* name, Py_ssize_t count, bool is_written = false) {
  return view.open(object, name, "f", sizeof(float), count, is_written);
}
inline bool open_words(View& view, PyObject* object, const char* name, Py_ssize_t count, bool is_written = false) {
  return view.open(object, name, "LQ", sizeof(uint64_t), count, is_written);
}

// Objects of ours inside Python's.
template <class T>
PyObject* wrap(T* object, const char* name) {
  PyObject* capsule = PyCapsule_New(object, name, [](PyObject* self) {
    delete static_cast<T*>(PyCapsule_GetPointer(self, PyCapsule_GetName(self)));
  });
  if (!capsule) delete object;
  return capsule;
}
template <class T>
T* unwrap(PyObject* capsule, const char* name) {
  return static_cast<T*>(PyCapsule_GetPointer(capsule, name));
}

}  // namespace
}  // namespace kernel
