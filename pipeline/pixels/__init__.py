"""From files to uint8 pixels at the model's size, on the encoder's device. A bad image gives a result with a reason."""
