"""Why a recording differs: when, which pitch, by how much and at which microphone, in words, pictures and pages."""
