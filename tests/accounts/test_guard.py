"""Who may call what over the websocket: the real pipeline, spoken to as a browser does."""

import contextlib
import json
import os
from typing import ClassVar
from uuid import uuid4

import pytest
import reflex as rx
from reflex_base.registry import RegistrationContext
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
