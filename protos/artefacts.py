from services.chassis.artefacts import *  # noqa: F403  (interim)
