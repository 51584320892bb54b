"""The probe: a linear model on the features of a frozen network; cross-validation chooses layer and penalty."""
