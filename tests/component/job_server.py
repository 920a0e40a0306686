"""Beam's Python job server on a free port: prints its address, then serves until it is ended.

.venv/bin/python -m tests.component.job_server [RELEASE]

With a release it tells of each job that it is of that one, as Java's job servers do.
"""

import signal
import sys

from apache_beam.runners.portability.local_job_service import LocalJobServicer


class _ReleaseTeller(LocalJobServicer):
    def GetJobs(self, request, context=None, timeout=None):  # noqa: N802 (Beam's name)
        response = super().GetJobs(request, context, timeout)
        for job in response.job_info:
            job.pipeline_options["beam:option:user_agent:v1"] = f"Apache_Beam_SDK_for_Java/{sys.argv[1]}"
        return response


def main():
    server = (_ReleaseTeller if sys.argv[1:] else LocalJobServicer)(staging_dir=None)
    port = server.start_grpc_server()
    print(f"localhost:{port}", flush=True)  # noqa: T201 (the parent process reads it)
    signal.pause()


if __name__ == "__main__":
    main()
