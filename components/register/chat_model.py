"""What MLflow runs when it loads a version ("models from code"); nothing is unpickled.

Every version holds a signed copy of this file, so it only names where the model is; later releases
load it, so that name stays.
"""

from mlflow.models import set_model  # noqa: TID253 - MLflow imports this file, nobody else does

from components.register.serving import AdapterChatModel

set_model(AdapterChatModel())
