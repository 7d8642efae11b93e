"""The native leaf: one C11 extension against the stable ABI of CPython 3.11."""

from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("src/l4re/_native")

setup(
    ext_modules=[
        Extension(
            "l4re._native.leaf",
            sources=sorted(str(path) for path in NATIVE.glob("*.c")),
            depends=sorted(str(path) for path in NATIVE.glob("*.h")),
            define_macros=[("Py_LIMITED_API", "0x030B0000"), ("_GNU_SOURCE", "1")],
            extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror=implicit", "-fvisibility=hidden"],
            py_limited_api=True,
        )
    ],
    # One wheel per architecture serves every CPython from 3.11 on.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
