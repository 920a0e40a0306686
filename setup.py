"""Packaging of BYOL-TFX.

Beam workers install it, too (`--setup_file=./setup.py`), which is why it names TFX.
"""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
README = HERE / "README.md"

# One range a lane: Python 3.10 means TFX 1.16, newer ones TFX 1.21. requirements/*.lock pins what is tested.
FLOOR = 'python_version < "3.11"'
CURRENT = 'python_version >= "3.11"'
REQUIRES = [
    f"tfx>=1.16,<1.17; {FLOOR}",
    f"tfx>=1.21,<1.22; {CURRENT}",
    f"tensorflow>=2.16.2,<2.17; {FLOOR}",
    f"tensorflow>=2.21,<2.22; {CURRENT}",
    f"tensorflow-transform>=1.16,<1.17; {FLOOR}",
    f"tensorflow-transform>=1.21,<1.22; {CURRENT}",
    f"tensorflow-model-analysis>=0.47.1,<0.48; {FLOOR}",
    f"tensorflow-model-analysis>=0.52,<0.53; {CURRENT}",
    f"apache-beam>=2.59,<2.60; {FLOOR}",
    f"apache-beam>=2.70,<3; {CURRENT}",
    "keras>=3.12,<4",
    "numpy>=1.26,<3",
    "apscheduler>=3.10,<4",
    "pillow>=11",
    "jinja2>=3.1,<4",
    "portalocker>=2.10",
    "prometheus-client>=0.20",
    "pyarrow>=10",
    "scikit-learn>=1.5,<2",
    "scipy>=1.10",
    "tensorboard>=2.16,<3",
    "urllib3>=1.26,<3",
    "waitress>=3.0.1,<4",
    "werkzeug>=3,<4",
    "typer>=0.15,<1",
    "rich>=13,<16",
]

setup(
    name="byol-tfx",
    version="0.1.0",
    description="Self-supervised BYOL pretraining of image encoders as a TFX pipeline with a gated push",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    # The empty key keeps an editable install a plain path entry, so packages added later are found at once.
    package_dir={"": "."},
    packages=find_packages(
        include=["components", "components.*", "trainer", "trainer.*", "pipeline", "pipeline.*", "kubeflow"],
    ),
    package_data={"": ["*.pbtxt", "*.html", "*.css", "*.js", "py.typed"]},
    install_requires=REQUIRES,
    extras_require={
        "kubeflow": ["kfp>=2.5,<2.17"],
        "jax": ["jax>=0.4.34"],
        # The client alone; it is not in the locks, and a release that fits the lane's pins is what pip finds.
        "mlflow": ["mlflow-skinny>=2.9,<4"],
    },
    entry_points={"console_scripts": ["byol=kubeflow.commands:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
