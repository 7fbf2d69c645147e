"""Settings every test shares."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in parallel processes, one thread each
os.environ.setdefault("VIDTAD_CACHE", os.path.join(os.path.dirname(__file__), ".no-cache"))
