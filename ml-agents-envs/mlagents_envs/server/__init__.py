"""The environment's end of the wire: any `BaseEnv` as a process that a trainer takes for a Unity build.

From Python, in a script that becomes an executable for ``--env``, or that is started by hand beside a trainer that
waits for the Editor::

    from mlagents_envs.server import serve

    serve(MyEnv)

The command ``mlagents-env NAME`` does the same for every environment that ``--env`` takes by name.
"""

from mlagents_envs.server.command import main
from mlagents_envs.server.environment_server import EnvironmentServer, EnvMaker, serve
from mlagents_envs.server.link import Link, TrainerLink

__all__ = ["EnvMaker", "EnvironmentServer", "Link", "TrainerLink", "main", "serve"]
