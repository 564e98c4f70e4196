"""The person of a clip: one identity code, and the expression of every frame, from all landmarks together.

Gradient steps on an encoder change shape, expression, pose and camera at once, and follow whatever the landmarks
show. They cannot separate the shape of a face from where a detector puts its points, nor from what it gets wrong for
a second. This folder estimates these parts as unknowns of one statistical model, by nonlinear least squares. The
method is not in the paper. `estimate_person` in `estimate.py` is the entry; `linear_model.py` is the model below as
tensors; `gauss_newton.py` is the solver.

The model
---------
Landmark j that view v observes in frame t lies at

    observed_vtj = camera_vt(mean_j + B_j identity + E_j expression_t + displacement_vj) + noise_vtj

in which mean_j is the landmark on the mean head, and B_j and E_j are the head model's bases there. Lengths are
millimetres on the head. The assumptions:

    identity        Normal about the mean of the encoder's predictions over the clip. Each coefficient has the
                    population's variance (1, by the definition of the code), but along the direction in which the
                    size of the face changes the variance is `EncoderCalibration.size_error_share`. (On 2,000 rendered
                    people the open encoder's error has 0.5 of the population's variance in the first two
                    coefficients, 0.7 to 0.8 in the next three, and more than 0.9 in nearly all others.)
    expression_t    Normal, independent in every frame, with the mean and covariance of `neuface.head.expressions`.
                    Where the encoder moves the jaw, the jaw's rotation is a part of the expression.
    displacement_vj Normal with standard deviation s, constant over time, correlated between neighbouring landmarks:
                    the lasting bias of a detector or an annotation scheme for this landmark of this face before
                    this camera.
    noise_vtj       Student's t with scale sigma, so that single wild points count little. The noise of consecutive
                    frames correlates by rho (AR(1)), so n frames hold the information of n (1 - rho) / (1 + rho)
                    independent ones. Where frames are left out, rho is that of the frames that are used.
    camera_vt       Weak perspective with any rotation, magnification and position.

The estimate
------------
1.  Gauss-Newton iterations find the most probable unknowns. Expectation maximisation estimates s, sigma and rho along
    with them, one update per iteration, so that exact landmarks of a rendered face are followed closely, and those
    of a detector as closely as their own errors warrant.
2.  Weak perspective does not determine the size of a head, so all of this holds the size fixed. Large heads have
    another shape than small ones, however: three sizes are solved, and the one with the largest evidence (the
    probability of the landmarks, with the shared unknowns integrated out) is taken.
3.  Frames that step 1 left out to save memory are solved last, for the person who was found.
"""
