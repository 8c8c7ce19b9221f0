"""`farthing demo`: a fixed workload through real models, and what it costs with farthing and without.

`workload.py` says what is asked, `run.py` asks, `bill.py` prints. Nothing here is part of the library.
"""
