"""What Ray reads from the environment while it is imported: so this must be called before the import."""

import os


def prepare_ray_environment() -> None:
    """Set what is not set already."""
    # Without a token anyone who reaches the node's ports can run code on it (CVE-2023-48022).
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Ray's own default for the future; without it every start warns.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The default of 15 s is too little for a machine that is busy with something else.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")
    # Otherwise Ray prints an error line for every restartable actor, of which none is one.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Otherwise a SIGTERM while Ray starts waits half a minute for a node that has nothing to finish.
    os.environ.setdefault("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "0")
