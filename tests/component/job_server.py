"""Beam's Python job server on a free port: prints its address, then serves until it is ended.

python -m tests.component.job_server
"""

import signal

from apache_beam.runners.portability.local_job_service import LocalJobServicer


def main():
    server = LocalJobServicer(staging_dir=None)
    port = server.start_grpc_server()
    print(f"localhost:{port}", flush=True)  # noqa: T201 (the parent process reads it)
    signal.pause()


if __name__ == "__main__":
    main()
