"""Why a recording differs: when, which pitch, by how much and which microphone, in words, pictures and pages."""
